import math

import numpy as np
import pytest

from sartor.core.errors import ConfigError
from sartor.core.records import Estimate
from sartor.core.rng import numpy_rng
from sartor.timing.estimate import PROCESS_SPREAD, absolute, ratio, verdict
from sartor.timing.rounds import Rounds


def simulated(
    truth: dict[str, float],
    *,
    sessions: int,
    rounds: int,
    seed: int,
    spread: float = 0.01,
    noise: float = 0.1,
    process: float = 0.0,
) -> Rounds:
    """Timings under a load that drifts threefold, with noise per sample, and a spread of sessions and processes."""
    rng = numpy_rng(seed, "simulated")
    load = np.exp(np.cumsum(rng.normal(0, 0.2, rounds)).clip(-1, 1))
    columns, rows = [], []
    for number, (name, seconds) in enumerate(truth.items()):
        shift = math.exp(rng.normal(0, process)) if process and not number else 1.0  # of the first against the others
        for _ in range(sessions):
            columns.append(name)
            layout = shift * math.exp(rng.normal(0, spread))
            rows.append(seconds * layout * load * np.exp(rng.normal(0, noise, rounds)))
    return Rounds(tuple(columns), tuple(map(tuple, np.array(rows).T.tolist())), (3,) * len(columns))


def test_intervals_cover_the_true_ratio_about_as_often_as_they_promise() -> None:
    truth = 0.7
    for sessions in (1, 3, 5):
        found = [
            ratio(simulated({"a": truth, "b": 1.0}, sessions=sessions, rounds=30, seed=s), "a", "b") for s in range(150)
        ]
        covered = np.mean([e.low <= truth <= e.high for e in found])
        assert covered >= 0.92, sessions
        assert np.mean([e.high - e.low for e in found]) < 0.2, sessions  # and not by being endless
        assert abs(np.median([e.value for e in found]) - truth) < 0.01


def test_the_interval_covers_a_spread_between_sessions_that_rounds_alone_cannot_show() -> None:
    rounds = simulated({"a": 1.0, "b": 1.0}, sessions=5, rounds=400, seed=0, spread=0.05, noise=0.001)
    found = ratio(rounds, "a", "b")
    within = Rounds(rounds.columns, rounds.seconds[:200], rounds.repeats)
    assert abs(ratio(within, "a", "b").value - found.value) < 1e-3  # the rounds agree to 0.1 %
    assert found.high - found.low > 0.06


def test_ratios_do_not_move_with_the_load_and_milliseconds_do() -> None:
    calm = simulated({"a": 0.5, "b": 1.0}, sessions=2, rounds=40, seed=1)
    busy = Rounds(calm.columns, tuple(tuple(3 * s for s in row) for row in calm.seconds), calm.repeats)
    assert ratio(busy, "a", "b").value == pytest.approx(ratio(calm, "a", "b").value)
    assert absolute(busy, "a").value == pytest.approx(3 * absolute(calm, "a").value)


def test_a_paired_ratio_of_single_sessions_is_the_median_of_the_ratios_per_round() -> None:
    rounds = simulated({"a": 0.5, "b": 1.0}, sessions=1, rounds=31, seed=2)
    expected = np.median([a / b for a, b in rounds.seconds])
    assert ratio(rounds, "a", "b").value == pytest.approx(expected)


def test_swapping_the_two_inverts_the_ratio() -> None:
    rounds = simulated({"a": 0.5, "b": 1.0}, sessions=3, rounds=40, seed=3)
    one, other = ratio(rounds, "a", "b"), ratio(rounds, "b", "a")
    assert one.value == pytest.approx(1 / other.value)
    assert one.low == pytest.approx(1 / other.high, rel=0.01)


def test_names_may_be_sessions_of_one_network() -> None:
    rounds = simulated({"a": 0.5, "b": 1.0}, sessions=2, rounds=20, seed=4)
    split = Rounds(("a1", "a2", "b", "b"), rounds.seconds, rounds.repeats)
    assert ratio(split, ("a1", "a2"), "b") == ratio(rounds, "a", "b")


def test_a_network_against_itself_is_exactly_one_with_a_symmetric_doubt() -> None:
    rounds = simulated({"b": 1.0}, sessions=2, rounds=20, seed=5)
    found = ratio(rounds, "b", "b")
    assert found.value == pytest.approx(1.0)
    assert found.low < 1 < found.high


def test_absolute_is_a_low_quantile_in_milliseconds() -> None:
    seconds = tuple((0.001 + 0.001 * (r % 10 == 0),) for r in range(50))
    found = absolute(Rounds(("a",), seconds, (3,)), "a")
    assert found.value == pytest.approx(1.0)
    assert found.low <= 1.0 <= found.high


def test_only_an_interval_on_one_side_decides() -> None:
    latency = Estimate(1.0, 0.9, 1.1)
    assert [verdict(latency, b) for b in (1.2, 1.1, 1.05, 0.9, 0.89)] == [
        "PASS",
        "PASS",
        "UNSURE",
        "UNSURE",
        "FAIL",
    ]


def several(truth: float, processes: int, seed: int, *, process: float, spread: float = 0.01) -> list[Rounds]:
    """What fresh processes find, each with five sessions and 14 rounds: the default for a verdict."""
    names = {"a": truth, "b": 1.0}
    return [
        simulated(names, sessions=5, rounds=14, seed=100 * seed + p, process=process, spread=spread, noise=0.05)
        for p in range(processes)
    ]


@pytest.mark.parametrize("process", [0.013, PROCESS_SPREAD, 0.035])
def test_the_interval_of_three_processes_covers_the_truth_about_as_often_as_it_promises(process: float) -> None:
    truth = 0.7
    found = [ratio(several(truth, 3, s, process=process), "a", "b") for s in range(200)]
    covered = np.mean([e.low <= truth <= e.high for e in found])
    assert covered >= 0.91
    assert np.median([e.high - e.low for e in found]) / 2 / truth < 0.06
    pairs = [a.low <= b.high and b.low <= a.high for a, b in zip(found[::2], found[1::2], strict=True)]
    assert np.mean(pairs) >= 0.95


def test_what_one_process_says_of_itself_covers_less_than_it_promises_of_others() -> None:
    """Why verdicts take several processes: the same simulation, one of them."""
    truth = 0.7
    found = [ratio(several(truth, 1, s, process=0.035), "a", "b") for s in range(200)]
    assert np.mean([e.low <= truth <= e.high for e in found]) < 0.8


def test_processes_that_agree_and_processes_that_do_not() -> None:
    """Half widths follow the scatter that is seen, from the floor of what is expected anyway."""
    calm, wild = (
        np.median([e.high / e.low for e in (ratio(several(0.7, 3, s, process=p), "a", "b") for s in range(30))])
        for p in (0.0, 0.06)
    )
    assert calm < 1.085
    assert wild > 1.5 * (calm - 1) + 1


def test_more_processes_narrow_the_interval() -> None:
    widths = [
        np.median([e.high / e.low for e in (ratio(several(0.7, n, s, process=0.03), "a", "b") for s in range(20))])
        for n in (2, 3, 8)
    ]
    assert widths == sorted(widths, reverse=True)
    assert math.log(widths[2]) < 0.7 * math.log(widths[1])


def test_the_value_of_several_processes_is_the_mean_of_their_logarithms() -> None:
    runs = several(0.7, 3, 0, process=0.05)
    each = [ratio(run, "a", "b").value for run in runs]
    assert ratio(runs, "a", "b").value == pytest.approx(math.exp(np.mean(np.log(each))))
    milliseconds = [absolute(run, "a").value for run in runs]
    assert absolute(runs, "a").value == pytest.approx(math.exp(np.mean(np.log(milliseconds))))


def test_one_process_in_a_list_is_one_process() -> None:
    (run,) = several(0.7, 1, 0, process=0.0)
    assert ratio([run], "a", "b") == ratio(run, "a", "b")
    with pytest.raises(ConfigError, match="no rounds to estimate from"):
        ratio([], "a", "b")

import gc
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sartor import measure
from sartor.core.errors import ConfigError, TargetError
from sartor.core.rng import numpy_rng
from sartor.exporting import export_onnx
from sartor.measure import Estimate, Rounds


def simulated(
    truth: dict[str, float], *, sessions: int, rounds: int, seed: int, spread: float = 0.01, noise: float = 0.1
) -> Rounds:
    """Timings with a load that drifts by a factor of three, noise per sample, and a spread between sessions."""
    rng = numpy_rng(seed, "simulated")
    load = np.exp(np.cumsum(rng.normal(0, 0.2, rounds)).clip(-1, 1))
    columns, rows = [], []
    for name, seconds in truth.items():
        for _ in range(sessions):
            columns.append(name)
            layout = math.exp(rng.normal(0, spread))
            rows.append(seconds * layout * load * np.exp(rng.normal(0, noise, rounds)))
    return Rounds(tuple(columns), tuple(map(tuple, np.array(rows).T.tolist())), (3,) * len(columns))


def test_intervals_cover_the_true_ratio_about_as_often_as_they_promise() -> None:
    truth = 0.7
    for sessions in (1, 3, 5):
        found = [
            measure.ratio(simulated({"a": truth, "b": 1.0}, sessions=sessions, rounds=30, seed=s), "a", "b")
            for s in range(150)
        ]
        covered = np.mean([e.low <= truth <= e.high for e in found])
        assert covered >= 0.92, sessions
        assert np.mean([e.high - e.low for e in found]) < 0.2, sessions  # and not by being endless
        assert abs(np.median([e.value for e in found]) - truth) < 0.01


def test_the_interval_covers_a_spread_between_sessions_that_rounds_alone_cannot_show() -> None:
    rounds = simulated({"a": 1.0, "b": 1.0}, sessions=5, rounds=400, seed=0, spread=0.05, noise=0.001)
    found = measure.ratio(rounds, "a", "b")
    within = Rounds(rounds.columns, rounds.seconds[:200], rounds.repeats)
    assert abs(measure.ratio(within, "a", "b").value - found.value) < 1e-3  # the rounds agree to 0.1 %
    assert found.high - found.low > 0.06


def test_ratios_do_not_move_with_the_load_and_milliseconds_do() -> None:
    calm = simulated({"a": 0.5, "b": 1.0}, sessions=2, rounds=40, seed=1)
    busy = Rounds(calm.columns, tuple(tuple(3 * s for s in row) for row in calm.seconds), calm.repeats)
    assert measure.ratio(busy, "a", "b").value == pytest.approx(measure.ratio(calm, "a", "b").value)
    assert measure.absolute(busy, "a").value == pytest.approx(3 * measure.absolute(calm, "a").value)


def test_a_paired_ratio_of_single_sessions_is_the_median_of_the_ratios_per_round() -> None:
    rounds = simulated({"a": 0.5, "b": 1.0}, sessions=1, rounds=31, seed=2)
    expected = np.median([a / b for a, b in rounds.seconds])
    assert measure.ratio(rounds, "a", "b").value == pytest.approx(expected)


def test_swapping_the_two_inverts_the_ratio() -> None:
    rounds = simulated({"a": 0.5, "b": 1.0}, sessions=3, rounds=40, seed=3)
    one, other = measure.ratio(rounds, "a", "b"), measure.ratio(rounds, "b", "a")
    assert one.value == pytest.approx(1 / other.value)
    assert one.low == pytest.approx(1 / other.high, rel=0.01)


def test_names_may_be_sessions_of_one_network() -> None:
    rounds = simulated({"a": 0.5, "b": 1.0}, sessions=2, rounds=20, seed=4)
    split = Rounds(("a1", "a2", "b", "b"), rounds.seconds, rounds.repeats)
    assert measure.ratio(split, ("a1", "a2"), "b") == measure.ratio(rounds, "a", "b")


def test_a_network_against_itself_is_exactly_one_with_a_symmetric_doubt() -> None:
    rounds = simulated({"b": 1.0}, sessions=2, rounds=20, seed=5)
    found = measure.ratio(rounds, "b", "b")
    assert found.value == pytest.approx(1.0)
    assert found.low < 1 < found.high


def test_absolute_is_a_low_quantile_in_milliseconds() -> None:
    seconds = tuple((0.001 + 0.001 * (r % 10 == 0),) for r in range(50))
    found = measure.absolute(Rounds(("a",), seconds, (3,)), "a")
    assert found.value == pytest.approx(1.0)
    assert found.low <= 1.0 <= found.high


def test_every_round_runs_every_call_in_an_order_of_its_own() -> None:
    log: list[str] = []
    calls = {"a": [lambda: log.append("x"), lambda: log.append("y")], "b": lambda: log.append("z")}
    marks: list[int] = []
    rounds = measure.interleave(
        calls, rounds=12, repeats=2, warmup=0.0, seed=7, on_round=lambda done, of: marks.append(len(log))
    )
    assert rounds.columns == ("a", "a", "b")
    assert np.shape(rounds.seconds) == (12, 3)
    assert rounds.repeats == (2, 2, 2)
    per_round = ["".join(log[a:b]) for a, b in zip([marks[0] - 9, *marks], marks, strict=False)]
    assert all(sorted(text) == sorted("xxxyyyzzz") for text in per_round)  # one untimed call and two timed ones each
    assert all("".join(c * 3 for c in dict.fromkeys(text)) == text for text in per_round)
    assert len(set(per_round)) > 3
    again: list[str] = []
    calls = {"a": [lambda: again.append("x"), lambda: again.append("y")], "b": lambda: again.append("z")}
    measure.interleave(calls, rounds=12, repeats=2, warmup=0.0, seed=7)
    assert again[-108:] == log[-108:]  # the order comes from the seed


def test_samples_of_short_calls_repeat_more_and_garbage_waits() -> None:
    enabled: list[bool] = []
    rounds = measure.interleave({"a": lambda: enabled.append(gc.isenabled())}, rounds=3, warmup=0.01)
    assert rounds.repeats == (200,)
    assert not any(enabled[-603:])
    assert gc.isenabled()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts interruptions of a thread")
def test_time_that_the_system_spends_on_something_else_does_not_count() -> None:
    def work() -> None:
        total = 0
        for i in range(1_000_000):
            total += i

    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    rivals = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]  # on the same core
    try:
        alone, wall, measured = [], [], []
        for _ in range(5):
            used, start = time.thread_time(), time.perf_counter()
            work()
            alone.append(time.thread_time() - used)
            wall.append(time.perf_counter() - start)
            measured.append(measure._timed(work))
    finally:
        for rival in rivals:
            rival.kill()
            rival.wait()
        os.sched_setaffinity(0, cores)
    assert np.median(wall) > 1.7 * np.median(alone)  # the rivals were there
    assert np.median(measured) < 1.3 * np.median(alone)


def test_waiting_does_count() -> None:
    slept = measure.interleave({"a": lambda: time.sleep(0.01)}, rounds=1, repeats=3, warmup=0.0).seconds[0][0]
    assert slept >= 0.01


def test_measuring_stops_when_the_interval_is_narrow() -> None:
    asked: list[int] = []

    def until(rounds: Rounds) -> bool:
        asked.append(len(rounds.seconds))
        return len(asked) == 2

    calls = {"a": lambda: None, "b": lambda: None}
    rounds = measure.interleave(calls, rounds=100, repeats=1, warmup=0.0, until=until)
    assert asked == [10, 20]
    assert len(rounds.seconds) == 20
    noisy = simulated({"a": 1.0, "b": 1.0}, sessions=5, rounds=100, seed=0, noise=0.2)
    few = Rounds(noisy.columns, noisy.seconds[:10], noisy.repeats)
    enough = measure.narrow("a", "b", relative=0.04)
    assert not enough(few)
    assert enough(noisy)


def test_slower_calls_have_larger_ratios() -> None:
    def work(n: int) -> measure.Call:
        x = torch.randn(n, n)
        return lambda: x @ x

    found = measure.against_reference(work(256), work(64))
    assert found.high < 0.5
    assert measure.against_reference([work(64), work(64)], work(256)).low > 2


def test_rounds_survive_json() -> None:
    rounds = simulated({"a": 0.5, "b": 1.0}, sessions=2, rounds=3, seed=0)
    assert Rounds.of(json.loads(json.dumps(rounds.as_dict()))) == rounds


def test_estimates_scale_and_become_plain_data() -> None:
    estimate = Estimate(2.0, 1.0, 4.0)
    assert estimate.scaled(0.5) == Estimate(1.0, 0.5, 2.0)
    assert estimate.as_dict() == {"value": 2.0, "low": 1.0, "high": 4.0}


def test_only_an_interval_on_one_side_decides() -> None:
    latency = Estimate(1.0, 0.9, 1.1)
    assert [measure.verdict(latency, b) for b in (1.2, 1.1, 1.05, 0.9, 0.89)] == [
        "PASS",
        "PASS",
        "UNSURE",
        "UNSURE",
        "FAIL",
    ]


def test_nothing_to_time_and_unknown_names_are_errors() -> None:
    for calls, rounds in (({}, 3), ({"a": []}, 3), ({"a": lambda: None}, 0)):
        with pytest.raises(ConfigError, match="nothing to time"):
            measure.interleave(calls, rounds=rounds)
    with pytest.raises(ConfigError, match=r"no timings of \['c'\]; these rounds hold \['a', 'b'\]"):
        measure.ratio(simulated({"a": 0.5, "b": 1.0}, sessions=1, rounds=3, seed=0), "a", "c")


def test_the_machine_is_described_in_plain_data() -> None:
    facts = measure.machine()
    assert {
        "processor",
        "cores",
        "load_average",
        "governor",
        "system",
        "python",
        "torch",
        "onnxruntime",
    } <= facts.keys()
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc")
def test_peak_memory_grows_with_the_activations(tmp_path: Path) -> None:
    shape = (1, 3, 512, 512)
    for width, name in ((64, "wide"), (4, "narrow")):
        net = nn.Sequential(nn.Conv2d(3, width, 1), nn.Sigmoid(), nn.Conv2d(width, 4, 1), nn.AdaptiveAvgPool2d(1))
        export_onnx(net, torch.zeros(shape), tmp_path / f"{name}.onnx")
    wide, narrow = (measure.peak_memory("onnxruntime", tmp_path / f"{n}.onnx", shape) for n in ("wide", "narrow"))
    assert wide >= 64 * 512 * 512 * 4  # the feature map has to be somewhere
    assert narrow < wide / 3
    with pytest.raises(TargetError, match=r"cannot measure the memory of .*no file"):
        measure.peak_memory("onnxruntime", tmp_path / "nothing.onnx", shape)

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from sartor.core.metrics import Metric
from sartor.core.records import Estimate
from sartor.jobs.compare.statistics import (
    Frame,
    Outcome,
    best_so_far,
    contestants,
    figures,
    gain,
    history,
    interval,
    welch,
)
from sartor.run.comparison import Answer, Corner, Figures, Tried, Use
from sartor.run.journal import FileJournal
from sartor.training import Recipe

ACCURACY = Metric("accuracy", "max", "share", "proportion")
ERROR = Metric("accuracy", "min", "share", "proportion")
"""Minus the accuracy, which is to be made small: everything that is said of it must be the same."""
PSNR = Metric("psnr", "max", "dB", "per_example")
FRAME = Frame(ACCURACY, {"macs": 60.0}, {"macs": 100.0, "params": 7.0})


def trial(quality, cost, fidelity=1.0, *, inside=True, n=1):
    return Tried(n, 9.0 * n, 1.0 * n, cost, quality, fidelity, inside)


def outcome(strategy, seed, quality, trials=(), *, trained=True, plugin=None, **changes):
    fixed = {"arch": (1, 2), "modelled": {"macs": 50.0}, "used": Use(2, 18.0, 3.0), "examples": 359}
    answer = Answer(seed=seed, quality=quality, trials=tuple(trials), **{**fixed, **changes})
    return Outcome(strategy, plugin or strategy, trained, answer)


def negative(value):
    return None if value is None else -value


def mirrored(found):
    """The same searches by minus the accuracy."""
    trials = tuple(replace(t, quality=negative(t.quality)) for t in found.answer.trials)
    answer = replace(
        found.answer, quality=negative(found.answer.quality), valid=negative(found.answer.valid), trials=trials
    )
    return replace(found, answer=answer)


def test_students_interval_in_closed_form():
    found = interval([0.90, 0.92, 0.94])
    half = 4.302652729749462 * 0.02 / math.sqrt(3)  # t of 97.5 % with two degrees of freedom
    assert found.value == pytest.approx(0.92)
    assert found.high - found.value == pytest.approx(half, rel=1e-9)
    assert found.value - found.low == pytest.approx(half, rel=1e-9)
    assert interval([0.9]) is None
    two = interval([0.0, 1.0])  # one degree of freedom is Cauchy: tan(0.475 pi)
    assert two.high - 0.5 == pytest.approx(math.tan(0.475 * math.pi) * 0.5)


def test_welch_is_scipys():
    a, b = [0.91, 0.93, 0.92, 0.95], [0.88, 0.93]
    found = welch(a, b)
    wanted = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert welch(a, [0.9]) is None


def test_two_means_without_any_spread_differ_exactly():
    assert welch([0.75, 0.75], [0.5, 0.5]) == Estimate(0.25, 0.25, 0.25)


def test_gains_are_paired_by_seed():
    theirs = {0: 0.50, 1: 0.60, 2: 0.70}
    better = gain({s: v + 0.02 + 0.001 * s for s, v in theirs.items()}, theirs, ACCURACY)
    assert better.verdict == "gain"  # seeds differ by ten points, the differences by a tenth of one
    assert better.low > 0
    assert "paired" in better.method
    worse = gain({s: v - 0.02 - 0.001 * s for s, v in theirs.items()}, theirs, ACCURACY)
    assert (worse.verdict, worse.value) == ("loss", pytest.approx(-better.value))
    unpaired = gain({s + 10: v + 0.02 for s, v in theirs.items()}, theirs, ACCURACY)
    assert unpaired.verdict == "no gain"
    assert unpaired.sentence == "no gain: +2.00 points (-20.67 to +24.67), the interval holds 0"
    assert "Welch" in unpaired.method


def test_gains_are_in_the_unit_of_the_metric():
    found = gain({0: 31.5, 1: 32.5, 2: 31.9}, {0: 31.2, 1: 32.2, 2: 31.5}, PSNR)
    assert found.sentence == "gain: +0.333 dB (+0.19 to +0.477)"
    one = gain({0: 31.5}, {0: 31.2}, PSNR)
    assert one.sentence == "no gain can be claimed: +0.3 dB with too few seeds for an interval"


def test_nothing_is_claimed_where_too_few_seeds_tell():
    one = gain({0: 0.9}, {0: 0.8}, ACCURACY)
    assert (one.verdict, one.low, one.value) == ("unknown", None, pytest.approx(0.1))
    assert "too few seeds" in one.sentence
    same = gain({0: 0.75, 1: 0.75}, {0: 0.5, 1: 0.5}, ACCURACY)  # the same difference twice: no interval of no width
    assert (same.verdict, same.low) == ("unknown", None)
    none = gain({0: 0.9, 1: 0.8}, {0: 0.9, 1: 0.8}, ACCURACY)
    assert none.verdict == "no gain"
    nothing = gain({}, {0: 0.9}, ACCURACY)
    assert nothing.value is None
    assert nothing.sentence == "no gain can be claimed: no accuracy to compare"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({0: 0.52, 1: 0.625, 2: 0.72}, {0: 0.50, 1: 0.60, 2: 0.70}),
        ({0: 0.48, 1: 0.575, 2: 0.68}, {0: 0.50, 1: 0.60, 2: 0.70}),
        ({10: 0.52, 11: 0.625}, {0: 0.50, 1: 0.60, 2: 0.70}),
        ({0: 0.9}, {0: 0.8}),
        ({0: 0.75, 1: 0.75}, {0: 0.5, 1: 0.5}),
        ({}, {0: 0.9}),
    ],
    ids=["gain", "loss", "Welch", "one seed", "no spread", "nothing"],
)
def test_a_gain_is_the_same_whether_the_metric_is_to_be_large_or_small(ours, theirs):
    plain = gain(ours, theirs, ACCURACY)
    assert gain({s: -v for s, v in ours.items()}, {s: -v for s, v in theirs.items()}, ERROR) == plain


def test_the_best_so_far_is_inside_the_budget_and_trained_longest():
    trials = [
        trial(None, 10),
        trial(0.8, 50, 1 / 9),
        trial(0.9, 70, inside=False),
        trial(0.6, 50),
        trial(0.95, 50, 1 / 3),
        trial(0.7, 55),
        trial(0.65, 55),
    ]
    assert best_so_far(trials, ACCURACY) == [None, 0.8, 0.8, 0.6, 0.6, 0.7, 0.7]
    smallest = [replace(t, quality=negative(t.quality)) for t in trials]
    assert best_so_far(smallest, ERROR) == [None, -0.8, -0.8, -0.6, -0.6, -0.7, -0.7]


def clouds(seeds=(0, 1)):
    """Random trials of some runs, of which one has a short training in between."""
    rng = np.random.default_rng(0)
    runs = {
        s: [trial(float(a), float(c), n=i) for i, (a, c) in enumerate(rng.uniform([0.3, 5], [1, 120], (9, 2)))]
        for s in seeds
    }
    runs[0].insert(3, trial(0.01, 3, 1 / 9))  # it counts nowhere
    return runs


def test_hypervolumes_are_shares_of_the_box_that_a_grid_counts():
    runs = clouds()
    found, _, corner = contestants([outcome("random_search", s, 0.9, t) for s, t in runs.items()], FRAME)
    counted = [t.quality for ts in runs.values() for t in ts if t.fidelity == 1]
    worst, best = min(counted), max(counted)
    assert corner == Corner(100.0, worst, best)
    n = 400
    cost = (np.arange(n) + 0.5) / n * 100
    accuracy = worst + (np.arange(n) + 0.5) / n * (best - worst)
    for answer, trials in zip(found["random_search"].answers, runs.values(), strict=True):
        covered = np.zeros((n, n), dtype=bool)
        for shown, t in zip(answer.trials, trials, strict=True):
            if t.fidelity == 1:
                covered |= (cost[:, None] >= t.cost) & (accuracy[None] <= t.quality)
            assert shown.hypervolume == pytest.approx(covered.mean(), abs=6e-3)
        assert answer.hypervolume == answer.trials[-1].hypervolume


def test_the_summary_has_figures_gains_and_what_was_spent():
    accuracies = {"random_search": [0.90, 0.91, 0.92], "ppo": [0.93, 0.95, 0.94], "aows": [0.9, None, 0.9]}
    outcomes = [
        outcome(n, s, a, [trial(0.5 + s / 10, 40)], trained=n != "aows", reason="" if a else "none inside")
        for n, values in accuracies.items()
        for s, a in enumerate(values)
    ]
    rows, yardstick, _ = contestants(outcomes, FRAME)
    assert list(rows) == list(accuracies)
    assert (rows["ppo"].tested.median, rows["ppo"].tested.mean) == (0.94, pytest.approx(0.94))
    assert rows["ppo"].tested.interval == interval(accuracies["ppo"])
    assert rows["random_search"].gain is None
    assert rows["ppo"].gain.value == pytest.approx(0.03)
    assert rows["aows"].gain.method == "paired t interval over 2 seeds"
    assert rows["aows"].hypervolume is None  # inherited weights are another scale
    assert rows["aows"].used == Use(2.0, 18.0, 3.0)
    assert [a.reason for a in rows["aows"].answers] == ["", "none inside", ""]
    assert yardstick == "random_search"
    alone, nobody, _ = contestants([o for o in outcomes if o.strategy == "ppo"], FRAME)
    assert nobody is None
    assert "no random search" in alone["ppo"].gain.sentence


def test_random_search_under_another_name_is_the_yardstick():
    outcomes = [outcome("few", s, 0.9 + s / 100, plugin="random_search") for s in (0, 1)]
    rows, yardstick, corner = contestants(outcomes, FRAME)
    assert (yardstick, rows["few"].gain, corner) == ("few", None, None)


def test_by_an_error_the_same_searches_have_the_same_gains_and_hypervolumes():
    runs = clouds((0, 1, 2))
    outcomes = [outcome("random_search", s, 0.8 + s / 50, t) for s, t in runs.items()]
    outcomes += [outcome("ppo", s, 0.85 + s / 40, reversed(t)) for s, t in runs.items()]
    outcomes += [outcome("aows", s, 0.7 if s else None, t, trained=False) for s, t in runs.items()]
    plain, _, corner = contestants(outcomes, FRAME)
    turned, yardstick, turned_corner = contestants([mirrored(o) for o in outcomes], replace(FRAME, metric=ERROR))
    assert yardstick == "random_search"
    assert turned_corner == Corner(corner.cost, -corner.worst, -corner.best)
    for name, row in plain.items():
        other = turned[name]
        assert other.gain == row.gain
        assert other.hypervolume == row.hypervolume
        assert other.used == row.used
        assert (other.tested.mean, other.tested.median) == (-row.tested.mean, -row.tested.median)
        for mine, theirs in zip(row.answers, other.answers, strict=True):
            assert [t.hypervolume for t in theirs.trials] == [t.hypervolume for t in mine.trials]
            assert [t.best for t in theirs.trials] == [negative(t.best) for t in mine.trials]


def test_figures_of_few_values():
    assert figures([]) == Figures(None, None, None)
    assert figures([0.5]) == Figures(0.5, 0.5, None)
    assert figures([0.5, 0.7, 0.9]).interval == interval([0.5, 0.7, 0.9])


def test_history_adds_up_what_trials_cost(tmp_path):
    journal, spent = FileJournal(tmp_path / "journal.jsonl"), FileJournal(tmp_path / "spent.jsonl")
    for epoch in (1, 2):
        journal.append({"kind": "log", "step": epoch, "epoch": epoch, "loss": 1.0})
    fields = {"kind": "trial", "arch": [0], "parent": None}
    journal.append({**fields, "index": 0, "fidelity": 1 / 3, "metrics": {"macs": 50, "accuracy": 0.5}, "error": None})
    journal.append({**fields, "index": 1, "fidelity": 1.0, "metrics": {"macs": 70}, "error": "diverged"})
    for trials, seconds in ((0, 1.0), (1, 2.0), (1, 0.5), (2, 4.0)):
        spent.append({"kind": "spent", "trials": trials, "seconds": seconds})
    rows, total = history(tmp_path, FRAME, Recipe(epochs=9).epochs_at)
    assert [r.epochs for r in rows] == [2 + 3, 2 + 3 + 9]
    assert [r.seconds for r in rows] == [3.5, 7.5]
    assert [(r.inside, r.quality) for r in rows] == [(True, 0.5), (False, None)]
    assert [(r.trials, r.cost, r.fidelity) for r in rows] == [(1, 50, 1 / 3), (2, 70, 1.0)]
    assert total == Use(2, 14.0, 7.5)
    assert history(tmp_path / "none", FRAME, Recipe().epochs_at) == ((), Use(0, 0.0, None))


def test_history_takes_the_metric_that_decides(tmp_path):
    fields = {"kind": "trial", "index": 0, "arch": [0], "fidelity": 1.0, "parent": None, "error": None}
    FileJournal(tmp_path / "journal.jsonl").append({**fields, "metrics": {"macs": 50, "psnr": 31.0, "accuracy": 0.5}})
    (row,), _ = history(tmp_path, replace(FRAME, metric=PSNR), Recipe().epochs_at)
    assert row.quality == 31.0

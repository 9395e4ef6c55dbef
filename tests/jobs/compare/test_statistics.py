from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sartor.jobs.compare.statistics import Frame, Outcome, best_so_far, gain, history, interval, summary, welch
from sartor.run.journal import FileJournal
from sartor.training import Recipe

FRAME = Frame("accuracy", {"macs": 60.0}, {"macs": 100.0, "params": 7.0})


def trial(accuracy, cost, fidelity=1.0, *, inside=True, n=1):
    return {
        "trials": n,
        "epochs": 9.0 * n,
        "seconds": 1.0 * n,
        "cost": cost,
        "accuracy": accuracy,
        "fidelity": fidelity,
        "inside": inside,
    }


def outcome(strategy, seed, accuracy, trials=(), *, trained=True, **changes):
    fixed = {"arch": [1, 2], "modelled": {"macs": 50.0}, "spent": {"trials": 2, "epochs": 18.0, "seconds": 3.0}}
    settings = {"plugin": strategy, "examples": 359, **fixed, **changes}
    return Outcome(strategy=strategy, seed=seed, accuracy=accuracy, trials=trials, trained=trained, **settings)


def test_students_interval_in_closed_form():
    found = interval([0.90, 0.92, 0.94])
    half = 4.302652729749462 * 0.02 / math.sqrt(3)  # t of 97.5 % with two degrees of freedom
    assert found["value"] == pytest.approx(0.92)
    assert found["high"] - found["value"] == pytest.approx(half, rel=1e-9)
    assert found["value"] - found["low"] == pytest.approx(half, rel=1e-9)
    assert interval([0.9]) is None
    two = interval([0.0, 1.0])  # one degree of freedom is Cauchy: tan(0.475 pi)
    assert two["high"] - 0.5 == pytest.approx(math.tan(0.475 * math.pi) * 0.5)


def test_welch_is_scipys():
    a, b = [0.91, 0.93, 0.92, 0.95], [0.88, 0.93]
    found = welch(a, b)
    wanted = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((wanted.low, wanted.high))
    assert welch(a, [0.9]) is None


def test_gains_are_paired_by_seed():
    theirs = {0: 0.50, 1: 0.60, 2: 0.70}
    better = gain({s: v + 0.02 + 0.001 * s for s, v in theirs.items()}, theirs)
    assert better["verdict"] == "gain"  # seeds differ by ten points, the differences by a tenth of one
    assert better["low"] > 0
    assert "paired" in better["method"]
    worse = gain({s: v - 0.02 - 0.001 * s for s, v in theirs.items()}, theirs)
    assert (worse["verdict"], worse["value"]) == ("loss", pytest.approx(-better["value"]))
    unpaired = gain({s + 10: v + 0.02 for s, v in theirs.items()}, theirs)
    assert unpaired["verdict"] == "no gain"
    assert unpaired["sentence"] == "no gain: +2.00 points (-20.67 to +24.67), the interval holds 0"
    assert "Welch" in unpaired["method"]


def test_nothing_is_claimed_where_too_few_seeds_tell():
    one = gain({0: 0.9}, {0: 0.8})
    assert (one["verdict"], one["low"], one["value"]) == ("unknown", None, pytest.approx(0.1))
    assert "too few seeds" in one["sentence"]
    same = gain({0: 0.75, 1: 0.75}, {0: 0.5, 1: 0.5})  # the same difference twice is no interval of no width
    assert (same["verdict"], same["low"]) == ("unknown", None)
    none = gain({0: 0.9, 1: 0.8}, {0: 0.9, 1: 0.8})
    assert none["verdict"] == "no gain"
    assert gain({}, {0: 0.9})["value"] is None


def test_the_best_so_far_is_inside_the_budget_and_trained_longest():
    trials = [
        trial(None, 10),
        trial(0.8, 50, 1 / 9),
        trial(0.9, 70, inside=False),
        trial(0.6, 50),
        trial(0.95, 50, 1 / 3),
        trial(0.7, 55),
    ]
    assert best_so_far(trials) == [None, 0.8, 0.8, 0.6, 0.6, 0.7]


def test_hypervolumes_are_shares_of_the_box_that_a_grid_counts():
    rng = np.random.default_rng(0)
    runs = {
        s: [trial(float(a), float(c), n=i) for i, (a, c) in enumerate(rng.uniform([0.3, 5], [1, 120], (9, 2)))]
        for s in (0, 1)
    }
    runs[0].insert(3, trial(0.01, 3, 1 / 9))  # a short training counts nowhere
    found = summary([outcome("random_search", s, 0.9, t) for s, t in runs.items()], FRAME)
    point = found["hypervolume_reference"]
    worst = min(t["accuracy"] for ts in runs.values() for t in ts if t["fidelity"] == 1)
    assert point == {"cost": 100.0, "accuracy": worst}
    n = 400
    cost = (np.arange(n) + 0.5) / n * 100
    accuracy = worst + (np.arange(n) + 0.5) / n * (1 - worst)
    for run, trials in zip(found["strategies"]["random_search"]["runs"], runs.values(), strict=True):
        covered = np.zeros((n, n), dtype=bool)
        for shown, t in zip(run["trials"], trials, strict=True):
            if t["fidelity"] == 1:
                covered |= (cost[:, None] >= t["cost"]) & (accuracy[None] <= t["accuracy"])
            assert shown["hypervolume"] == pytest.approx(covered.mean(), abs=6e-3)
        assert run["hypervolume"] == run["trials"][-1]["hypervolume"]


def test_the_summary_has_figures_gains_and_what_was_spent():
    accuracies = {"random_search": [0.90, 0.91, 0.92], "ppo": [0.93, 0.95, 0.94], "aows": [0.9, None, 0.9]}
    outcomes = [
        outcome(n, s, a, [trial(0.5 + s / 10, 40)], trained=n != "aows", reason="" if a else "none inside")
        for n, values in accuracies.items()
        for s, a in enumerate(values)
    ]
    found = summary(outcomes, FRAME)
    rows = found["strategies"]
    assert list(rows) == list(accuracies)
    assert (rows["ppo"]["median"], rows["ppo"]["mean"]) == (0.94, pytest.approx(0.94))
    assert rows["ppo"]["interval"] == interval(accuracies["ppo"])
    assert rows["random_search"]["gain"] is None
    assert rows["ppo"]["gain"]["value"] == pytest.approx(0.03)
    assert rows["aows"]["gain"]["method"] == "paired t interval over 2 seeds"
    assert rows["aows"]["hypervolume"] is None  # inherited weights are another scale
    assert rows["aows"]["spent"] == {"trials": 2.0, "epochs": 18.0, "seconds": 3.0}
    assert found["yardstick"] == "random_search"
    alone = summary([o for o in outcomes if o.strategy == "ppo"], FRAME)
    assert "no random search" in alone["strategies"]["ppo"]["gain"]["sentence"]


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
    assert [r["epochs"] for r in rows] == [2 + 3, 2 + 3 + 9]
    assert [r["seconds"] for r in rows] == [3.5, 7.5]
    assert [(r["inside"], r["accuracy"]) for r in rows] == [(True, 0.5), (False, None)]
    assert total == {"trials": 2, "epochs": 14.0, "seconds": 7.5}
    assert history(tmp_path / "none", FRAME, Recipe().epochs_at) == ([], {"trials": 0, "epochs": 0.0, "seconds": None})

from __future__ import annotations

import numpy as np
import pytest

from contracts import checks
from sartor.core.errors import ConfigError
from sartor.core.records import Trial
from sartor.strategies.regularized_evolution import RegularizedEvolution

from strategies.searching import problem, search  # isort: skip


def test_the_oldest_dies_and_not_the_worst():
    evolution = RegularizedEvolution(problem(4, 4, 4), 0, trials=30, population=5)
    ages = []
    trials = search(evolution, sum, after=lambda _: ages.append([t.index for t in evolution.population]))
    assert len(trials) == 30
    assert ages[4] == [0, 1, 2, 3, 4]
    assert ages[5] == [1, 2, 3, 4, 5]
    assert ages[-1] == [25, 26, 27, 28, 29]


def changes(mutation, sizes=(5, 5, 5), ordered=False, **settings):
    """How often so many choices changed, and the steps, where the parent is always the best of the population."""
    evolution = RegularizedEvolution(
        problem(*sizes, ordered=ordered), 0, trials=400, population=3, sample=60, mutation=mutation, **settings
    )
    counts, steps = [], []

    def score(arch):
        if len(evolution.population) == 3:
            parent = max(evolution.population, key=lambda t: t.metrics["accuracy"]).arch
            counts.append(sum(a != b for a, b in zip(arch, parent, strict=True)))
            steps.extend(b - a for a, b in zip(parent, arch, strict=True) if a != b)
        return sum(arch) + len(counts) * 1e-6

    search(evolution, score)
    return counts, steps


def test_one_choice_changes_to_another_option():
    counts, steps = changes("different")
    assert set(counts) == {1}
    assert max(map(abs, steps)) > 1


def test_any_option_may_be_the_same_one():
    counts, _ = changes("any")
    assert set(counts) == {0, 1}
    assert np.mean([c == 0 for c in counts]) == pytest.approx(1 / 5, abs=0.07)


def test_a_neighbour_is_one_step_away():
    counts, steps = changes("neighbour", ordered=True)
    assert set(counts) == {1}
    assert set(steps) == {-1, 1}


def test_the_parent_is_the_best_of_a_sample():
    """With sample = population and no replacement the best is always the parent; with a sample of 1 any is."""
    greedy = RegularizedEvolution(problem(9, 9), 0, trials=200, population=4, sample=4, replacement=False)
    random = RegularizedEvolution(problem(9, 9), 0, trials=200, population=4, sample=1)
    means = [np.mean([t.metrics["accuracy"] for t in search(s, sum)]) for s in (greedy, random)]
    assert means[0] > means[1] + 2


def test_failures_do_not_live():
    evolution = RegularizedEvolution(problem(4, 4, 4), 0, trials=60, batch=4, population=6)
    trials = search(evolution, lambda a: None if a[0] == 1 else sum(a))
    assert len(trials) == 60
    assert any(not t.ok for t in trials)
    assert all(t.ok for t in evolution.population)
    assert len(evolution.population) == 6


def test_children_are_within_budget_and_the_best_there_is_found():
    evolution = RegularizedEvolution(problem(6, 6, 6, upper=7), 0, trials=150)
    trials = search(evolution, lambda a: a[0] + 2 * a[1] + 3 * a[2])
    assert max(sum(t.arch) for t in trials) == 7
    assert evolution.solve({"sum": 7}) == (0, 2, 5)


def test_a_space_without_freedom():
    assert {t.arch for t in search(RegularizedEvolution(problem(1, 1), 0, trials=20), sum)} == {(0, 0)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trials": 0}, "trials is 0; it must be at least 1"),
        ({"population": 3, "sample": 4, "replacement": False}, "more than the population of 3"),
        ({"mutation": "same"}, "must be different, any or neighbour"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ConfigError, match=message):
        RegularizedEvolution(problem(2), 0, **settings)


class Seeing:
    """A lab of networks that are all as good, which keeps what was known when each was proposed."""

    def __init__(self):
        self.count, self.ahead = 0, []

    def evaluate(self, proposals, ahead=()):
        self.ahead.append(len(ahead))
        first, self.count = self.count, self.count + len(proposals)
        return [Trial(first + i, p.arch, p.fidelity, {"accuracy": float(i)}) for i, p in enumerate(proposals)]


@pytest.mark.parametrize(("window", "batch"), [(1, 1), (3, 1), (4, 2)])
def test_a_batch_uses_the_results_up_to_the_window_before_it(monkeypatch, window, batch):
    known = []
    ask = RegularizedEvolution.ask

    def asked(self):
        found = ask(self)
        if found:
            known.append(len(self.trials))
        return found

    monkeypatch.setattr(RegularizedEvolution, "ask", asked)
    strategy, lab = (
        RegularizedEvolution(problem(4, 4, 4), 0, trials=20, batch=batch, window=window, population=4),
        Seeing(),
    )
    while strategy.step(lab):
        pass
    assert known == [batch * max(0, k - window + 1) for k in range(20 // batch)]
    assert len(strategy.trials) == 20
    assert lab.ahead[0] == batch * (window - 1)
    assert lab.ahead[-1] == 0


def ahead(**attributes):
    return type("Ahead", (RegularizedEvolution,), {"smoke": {**RegularizedEvolution.smoke, "window": 3}, **attributes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ahead")
    checks.search(checks.fresh(ahead()), folder)
    return folder


def test_killed_with_batches_under_way_it_goes_on_exactly(whole, tmp_path):
    for calls in (0, 2, 5, 9):
        checks.killed_in_a_trial_resumes_exactly(ahead(), whole, tmp_path / f"a{calls}", calls)
        checks.killed_in_a_step_resumes_exactly(ahead(), whole, tmp_path / f"b{calls}", calls)
    checks.saved_state_is_complete(ahead(), whole, tmp_path / "c")
    with pytest.raises(AssertionError):
        checks.saved_state_is_complete(ahead(saved=("rng",)), whole, tmp_path / "d")

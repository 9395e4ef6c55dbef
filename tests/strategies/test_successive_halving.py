from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from sartor.core.errors import ConfigError
from sartor.strategies.successive_halving import SuccessiveHalving

from strategies.searching import problem, search  # isort: skip


@pytest.mark.parametrize("batch", [1, 5])
def test_a_bracket_is_the_papers_and_promotes_the_best(batch):
    trials = search(
        SuccessiveHalving(problem(9, 9, 9), 0, trials=39, batch=batch), lambda a: a[0] * 81 + a[1] * 9 + a[2]
    )
    assert Counter(round(9 * t.fidelity) for t in trials) == {1: 27, 3: 9, 9: 3}
    rungs = [[t for t in trials if round(9 * t.fidelity) == f] for f in (1, 3, 9)]
    for lower, upper in pairwise(rungs):
        ranked = sorted(lower, key=lambda t: -t.metrics["accuracy"])
        assert [t.arch for t in upper] == [t.arch for t in ranked[: len(upper)]]
    assert [t.index for rung in rungs for t in rung] == list(range(39))


def test_a_new_bracket_until_the_trials_are_used():
    strategy = SuccessiveHalving(problem(9, 9), 0, trials=50, networks=8, eta=2, least=0.25)
    counts = Counter(t.fidelity for t in search(strategy, sum))
    assert counts == {0.25: 3 * 8 + 8, 0.5: 3 * 4, 1.0: 3 * 2}
    assert strategy.solve({}) == max((t.arch for t in strategy.trials if t.fidelity == 1), key=sum)


def test_budget_and_failures():
    strategy = SuccessiveHalving(problem(9, 9, upper=6), 0, trials=60, networks=9)
    trials = search(strategy, lambda a: None if a[0] > 3 else sum(a))
    assert all(sum(t.arch) <= 6 for t in trials)
    assert all(t.ok for t in trials if t.fidelity > 0.2)


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match="networks is 0"):
        SuccessiveHalving(problem(2), 0, networks=0)
    with pytest.raises(ConfigError, match="least must be in"):
        SuccessiveHalving(problem(2), 0, least=0.0)

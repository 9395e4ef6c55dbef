from __future__ import annotations

import numpy as np
import pytest

from sartor.core.errors import ConfigError
from sartor.core.records import Trial
from sartor.strategies.bohb import Bohb

from strategies.searching import problem, search  # isort: skip


def told(strategy, fidelity, archs, score):
    strategy.trials += [
        Trial(len(strategy.trials) + i, a, fidelity, {"accuracy": score(a)}) for i, a in enumerate(archs)
    ]


def test_the_model_is_of_the_largest_fidelity_with_enough_results():
    strategy = Bohb(problem(30, 30), 0)
    archs = [(i, 29 - i) for i in range(30)]
    told(strategy, 1 / 9, archs[:4], lambda a: a[0])
    assert strategy.densities() is None  # two choices: five are needed
    told(strategy, 1 / 9, archs[4:], lambda a: a[0])
    good, bad = strategy.densities()
    # 15 % of 30 are 4, the rest are bad
    assert sorted(map(tuple, good.points.tolist())) == [(26, 3), (27, 2), (28, 1), (29, 0)]
    assert len(bad.points) == 26
    told(strategy, 1.0, archs[:4], lambda a: -a[0])
    assert len(strategy.densities()[1].points) == 26
    told(strategy, 1.0, archs[4:5], lambda a: -a[0])
    good, bad = strategy.densities()
    assert good.points.tolist() == [[0, 29], [1, 28], [2, 27]]  # never fewer than three,
    assert bad.points.tolist() == [[2, 27], [3, 26], [4, 25]]  # so the two share one
    strategy.trials.append(Trial(99, (9, 9), 1.0, {}, "failed"))
    assert strategy.densities()[1].points.tolist() == bad.points.tolist()


def test_what_is_drawn_has_the_best_ratio():
    strategy = Bohb(problem(8, 8, 8), 0, random=0.0, samples=200)
    rng = np.random.default_rng(0)
    archs = [tuple(a) for a in rng.integers(8, size=(60, 3)).tolist()]
    told(strategy, 1.0, archs, sum)
    good, bad = strategy.densities()
    every = np.array([(a, b, c) for a in range(8) for b in range(8) for c in range(8)])
    ranks = (-good(every) / bad(every)).argsort().argsort().reshape(8, 8, 8)
    assert np.mean([ranks[strategy.draw()] for _ in range(40)]) < 20  # of 512


@pytest.mark.parametrize("random", [0.0, 1.0])
def test_it_learns_unless_all_is_random(random):
    def score(arch):
        return -sum((a - 5) ** 2 for a in arch)

    means = []
    for seed in range(3):
        trials = search(Bohb(problem(8, 8, 8, 8, ordered=True), seed, trials=200, random=random, batch=2), score)
        means.append(np.mean([t.metrics["accuracy"] for t in trials[:150:] if t.fidelity < 0.2][40:]))
    assert (np.mean(means) > -22) == (random == 0.0)


def test_tight_budgets():
    trials = search(Bohb(problem(6, 6, 6, 6, upper=4), 0, trials=120, random=0.0, batch=3), sum)
    assert len(trials) == 120
    assert all(sum(t.arch) <= 4 for t in trials)


@pytest.mark.parametrize("settings", [{"random": 1.1}, {"good": 0.0}, {"widen": 0.0}, {"bandwidth": 0.0}])
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError, match=r"random must be in \[0, 1\]"):
        Bohb(problem(2), 0, **settings)

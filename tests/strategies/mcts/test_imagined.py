from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from sartor.regions.openings import Openings
from sartor.regions.region import Region
from sartor.strategies.mcts.imagined import Function, Planner
from sartor.surrogates.values import Values

from strategies.searching import problem  # isort: skip

SIZES = (4, 3, 5)


def values(seed, pairs=0.5):
    rng, d = np.random.default_rng(seed), sum(SIZES)
    zero = Values.zero(SIZES)
    return Values(0.3, rng.standard_normal(d), pairs * rng.standard_normal((d, d)), zero.offsets)


def planner(upper=None, **settings):
    one = problem(*SIZES, upper=upper)
    return Planner(Region(one), Openings(one), **{"playouts": 30, "explore": 0.2, "climb": True, **settings})


def test_a_function_is_the_values_less_their_constant():
    archs = list(product(*map(range, SIZES)))
    assert [Function(values(0))(a) for a in archs] == pytest.approx((values(0).at(np.array(archs)) - 0.3).tolist())


def test_as_many_playouts_as_networks_find_the_best():
    for seed in range(5):
        best = np.unravel_index(values(seed).grid().argmax(), SIZES)
        assert planner(playouts=60, climb=False)(values(seed), (), np.random.default_rng(0)) == tuple(best)


def test_climbing_ends_where_no_single_option_is_better():
    found = planner(playouts=2)(values(1), (), np.random.default_rng(0))
    function = Function(values(1))
    others = [(*found[:i], k, *found[i + 1 :]) for i in range(3) for k in range(SIZES[i])]
    assert function(found) == max(map(function, others))


def test_bounds_beat_as_many_random_networks():
    """A tree of 10 playouts without climbing finds better networks than the best of 10 draws."""
    gains = []
    for seed in range(60):
        rng, function = np.random.default_rng(seed), Function(values(seed, pairs=0.1))
        random = max(function(tuple(int(rng.integers(k)) for k in SIZES)) for _ in range(10))
        gains.append(function(planner(playouts=10, climb=False)(values(seed, pairs=0.1), (), rng)) - random)
    assert np.mean(gains) > 2 * np.std(gains) / np.sqrt(len(gains))


def test_what_is_taken_or_outside_is_not_found():
    every = set(product(*map(range, SIZES)))
    left = {(0, 1, 2), (3, 0, 1)}
    for seed in range(5):
        assert planner(playouts=60)(values(seed), every - left, np.random.default_rng(0)) in left
        assert sum(planner(upper=2)(values(seed), (), np.random.default_rng(seed))) <= 2
    assert planner()(values(0), every, np.random.default_rng(0)) is None

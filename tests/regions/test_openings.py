from __future__ import annotations

from itertools import product

import numpy as np
import torch

from problems import small_problem
from sartor.core.contracts import CostModel, Problem
from sartor.core.records import Constraint, Objective
from sartor.core.tables import Tables
from sartor.regions.openings import Openings
from sartor.regions.region import Region

from strategies.searching import Plain, problem  # isort: skip


class Table(CostModel):
    metric = "sum"

    def __init__(self, *tables):
        self.tables = tables

    def __call__(self, archs):
        return torch.stack([t(archs) for t in self.tables]).max(0).values

    def terms(self):
        return self.tables


def limited(cost, upper, *sizes):
    return Problem(Plain(*sizes), (Objective("accuracy", "max"),), (Constraint("sum", upper),), {"sum": cost})


def tables(rng, sizes, pairs):
    unary = tuple(torch.from_numpy(rng.random(k)) for k in sizes)
    return Tables(unary, {(i, j): torch.from_numpy(rng.random((sizes[i], sizes[j]))) for i, j in pairs}, 0.1)


def completed(openings, sizes):
    """All networks that the open options lead to."""
    found = [()]
    for _ in sizes:
        found = [(*p, o) for p in found for o in openings(p)]
    return set(found)


def test_sums_leave_exactly_the_networks_inside():
    rng, sizes = np.random.default_rng(0), (3, 4, 2)
    for _ in range(10):
        cost = Table(tables(rng, sizes, []))
        one = limited(cost, 1.4, *sizes)
        inside = {a for a in product(*map(range, sizes)) if a in Region(one)}
        openings = Openings(one)
        assert completed(openings, sizes) == inside
        for prefix in [a[:k] for a in inside for k in range(3)]:
            assert openings(prefix)  # every open branch can be completed


def test_pairs_and_maxima_lose_no_network():
    rng, sizes = np.random.default_rng(1), (3, 3, 3)
    for _ in range(10):
        cost = Table(tables(rng, sizes, [(0, 1), (1, 2), (0, 2)]), tables(rng, sizes, [(0, 2)]))
        one = limited(cost, 2.2, *sizes)
        inside = {a for a in product(*map(range, sizes)) if a in Region(one)}
        assert completed(Openings(one), sizes) == inside


def test_costs_without_tables_prune_nothing():
    assert Openings(problem(4, 4, upper=2))((3,)) == [0, 1, 2, 3]


def test_limits_of_a_real_space():
    one = small_problem()
    sizes = [len(c.options) for c in one.space.choices]
    found = completed(Openings(one), sizes)
    inside = {a for a in product(*map(range, sizes)) if a in Region(one)}
    assert inside <= found
    assert len(found) < np.prod(sizes)

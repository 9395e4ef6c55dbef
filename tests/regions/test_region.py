from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from problems import small_problem
from sartor import archs
from sartor.core.contracts import CostModel, Problem, Space
from sartor.core.errors import BudgetError, CapabilityError, ConfigError
from sartor.core.records import Choice, Constraint, Objective, Trial
from sartor.regions.region import Price, Region, answer, at_least_one, proposals

SMALL = small_problem()
EVERY = list(archs.enumerate_all(SMALL.space))


class Plain(Space):
    def __init__(self, *sizes, ordered=True):
        self.choices = tuple(Choice(f"c{i}", tuple(range(n)), ordered=ordered) for i, n in enumerate(sizes))

    def build(self, arch):
        raise AssertionError("nothing is built")


class Opaque(CostModel):
    """Without tables."""

    metric = "cost"

    def __init__(self, value):
        self.value, self.calls = value, 0

    def __call__(self, networks):
        self.calls += 1
        return torch.tensor([float(self.value(*a)) for a in networks], dtype=torch.float64)


def opaque(value, upper, *sizes):
    space = Plain(*sizes)
    return Problem(space, (Objective("accuracy", "max"),), (Constraint("cost", upper),), {"cost": Opaque(value)})


def test_prices_equal_the_cost_models_in_the_last_bit():
    for cost in (SMALL.costs or {}).values():
        price, exact = Price(cost), cost(EVERY)
        assert [price(a) for a in EVERY] == exact.tolist()
        assert price.many(np.array(EVERY)).tolist() == exact.tolist()


def test_a_cost_without_tables_is_asked_once_per_network():
    cost = Opaque(lambda a, b: a + b)
    price = Price(cost)
    assert price((1, 2)) == price((1, 2)) == 3
    assert price.many(np.array([[1, 2], [2, 2]])).tolist() == [3, 4]
    assert cost.calls == 2


def test_membership_is_the_problems():
    region = Region(SMALL)
    inside = [a for a in EVERY if SMALL.feasible(a)]
    assert 5 < len(inside) < len(EVERY) - 5
    assert [a for a in EVERY if a in region] == inside
    assert np.array(EVERY)[region.inside(np.array(EVERY))].tolist() == [list(a) for a in inside]
    assert [a for a in EVERY if region.excess(a) == 0] == inside
    macs = SMALL.costs["macs"]([EVERY[7]]).item()
    assert region.ratios(EVERY[7])[0] == macs / SMALL.limit("macs")


def test_draws_are_uniform_inside():
    region, rng = Region(SMALL), np.random.default_rng(0)
    inside = [a for a in EVERY if a in region]
    counts = Counter(region.sample(rng) for _ in range(100 * len(inside)))
    assert counts.keys() == set(inside)
    chi = sum((n - 100) ** 2 / 100 for n in counts.values())
    assert chi < len(inside) + 4 * (2 * len(inside)) ** 0.5


def test_a_rare_network_is_found_by_blocks_or_by_repair():
    rng = np.random.default_rng(0)
    assert sum(Region(opaque(lambda *a: sum(a), 2, 8, 8, 8, 8)).sample(rng)) <= 2
    assert Region(opaque(lambda *a: sum(a), 0, *[9] * 9)).sample(rng) == (0,) * 9


def test_repair_goes_down_as_little_as_it_can():
    region, rng = Region(opaque(lambda a, b: 10 * a + b, 25, 6, 6)), np.random.default_rng(0)
    assert region.repair((2, 3), rng) == (2, 3)
    assert region.repair((3, 0), rng) == (2, 0)
    ends = {region.repair((3, 5), rng) for _ in range(50)}
    assert (2, 5) in ends  # straight
    assert len(ends) > 2  # and by way of the other choice
    assert all(a in region for a in ends)


def test_where_no_single_change_helps_the_solver_finds_the_way():
    # Only both choices together are cheap.
    region = Region(opaque(lambda a, b: 1 if a == b == 0 else 10, 5, 2, 2))
    assert region.repair((1, 1), np.random.default_rng(0)) == (0, 0)
    tables = Region(SMALL, {"macs": float(SMALL.costs["macs"]([(0, 0, 0)]))})
    assert tables.repair((3, 3, 3), np.random.default_rng(0)) == (0, 0, 0)


def test_first_draws_until_it_is_inside():
    region, rng, drawn = Region(opaque(lambda a: a, 3, 9)), np.random.default_rng(0), iter([8, 5, 2, 1])
    assert region.first(lambda: (next(drawn),), rng) == (2,)
    assert next(drawn) == 1
    assert region.first(lambda: (8,), rng, tries=4) == (3,)


def test_limits_that_nobody_can_check():
    only_measured = replace(SMALL, constraints=(Constraint("watts", 1.0),))
    assert all(a in Region(only_measured) for a in EVERY)
    with pytest.raises(CapabilityError, match="no cost model for 'watts'"):
        Region(SMALL, {"watts": 1.0})
    with pytest.raises(BudgetError):
        Region(SMALL, {"macs": 1.0}).sample(np.random.default_rng(0))
    with pytest.raises(BudgetError):
        Region(opaque(lambda a: a + 1, 0.5, 4)).sample(np.random.default_rng(0))


def test_the_answer_is_the_best_at_the_highest_fidelity():
    rng, anything = np.random.default_rng(0), {"macs": 1e9}

    def trial(arch, accuracy, fidelity=1.0, error=None):
        return Trial(0, arch, fidelity, {} if error else {"accuracy": accuracy}, error)

    known = [
        trial((0, 0, 0), 0.5),
        trial((1, 0, 0), 0.6),
        trial((3, 3, 3), 0.9, 0.5),
        trial((3, 3, 2), 0.95, error="diverged"),
    ]
    assert answer(SMALL, known, anything, rng) == (1, 0, 0)
    assert answer(SMALL, known[2:], anything, rng) == (3, 3, 3)
    tight = {"macs": float(SMALL.costs["macs"]([(0, 0, 0)]))}
    assert answer(SMALL, known, tight, rng) == (0, 0, 0)
    assert answer(SMALL, [], tight, rng) == (0, 0, 0)


def test_at_least_one():
    at_least_one(trials=1, batch=2)
    with pytest.raises(ConfigError, match="batch is 0; it must be at least 1"):
        at_least_one(trials=1, batch=0)


def test_fresh_networks_are_none_that_are_taken():
    region = Region(small_problem())
    everything = {region.sample(np.random.default_rng(i)) for i in range(200)}
    one = min(everything)
    assert region.fresh(everything - {one}, np.random.default_rng(0), 5000) == one
    assert region.fresh(everything, np.random.default_rng(0), 50) is None


def test_proposals_are_drawn_one_after_another_until_there_are_none():
    seen = []

    def draw(before):
        seen.append(list(before))
        return (len(before),) if len(before) < 3 else None

    assert [p.arch for p in proposals(2, draw)] == [(0,), (1,)]
    assert [p.arch for p in proposals(9, draw)] == [(0,), (1,), (2,)]
    assert seen[:2] == [[], [(0,)]]

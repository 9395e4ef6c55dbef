from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch import nn

from sartor import archs
from sartor.core.contracts import CostModel, Problem, Space
from sartor.core.errors import BudgetError
from sartor.core.records import Choice, Constraint, Objective
from sartor.core.rng import numpy_rng
from sartor.core.tables import Tables


class Plain(Space):
    """An ordered choice, an unordered one and one without freedom; `mirror` makes (1, x, 0) the same as (0, x, 0)."""

    def __init__(self, mirror=False):
        self.mirror = mirror
        self.choices = (Choice("depth", (1, 2, 4, 8), ordered=True), Choice("op", ("a", "b", "c")), Choice("one", (0,)))

    def build(self, arch):
        return nn.Identity()

    def canonical(self, arch):
        return (0, *arch[1:]) if self.mirror and arch[0] == 1 else arch


class Sum(CostModel):
    metric = "cost"

    def __call__(self, batch):
        return torch.tensor([float(sum(a)) for a in batch], dtype=torch.float64)


def problem(limit):
    return Problem(Plain(), (Objective("loss", "min"),), (Constraint("cost", limit),), {"cost": Sum()})


def test_enumeration_is_complete_ordered_and_canonical():
    everything = list(archs.enumerate_all(Plain()))
    assert len(everything) == 12
    assert all(a < b for a, b in pairwise(everything))
    assert len(list(archs.enumerate_all(Plain(mirror=True)))) == 9


def test_ends():
    assert archs.smallest(Plain()) == (0, 0, 0)
    assert archs.largest(Plain()) == (3, 2, 0)


def test_crossover_takes_every_choice_from_a_parent():
    space, rng = Plain(), numpy_rng(0)
    children = Counter(archs.crossover(space, (0, 0, 0), (3, 2, 0), rng) for _ in range(400))
    assert set(children) == {(0, 0, 0), (0, 2, 0), (3, 0, 0), (3, 2, 0)}
    assert min(children.values()) > 60
    assert archs.crossover(space, (1, 1, 0), (1, 1, 0), rng) == (1, 1, 0)
    assert archs.crossover(Plain(mirror=True), (1, 1, 0), (1, 1, 0), rng) == (0, 1, 0)


def test_one_hot_and_gates():
    space = Plain()
    batch = list(archs.enumerate_all(space))
    encoded = archs.one_hot(space, batch)
    assert encoded.shape == (12, 8)
    assert len({tuple(row.tolist()) for row in encoded}) == 12
    assert [tuple(int(g.argmax()) for g in archs.gates(space, a)) for a in batch] == batch
    assert encoded.sum(1).tolist() == [3.0] * 12


def test_gates_pick_the_entry_of_a_table():
    space = Plain()
    tables = Tables(tuple(torch.arange(len(c.options), dtype=torch.float64) ** 2 for c in space.choices))
    for arch in archs.enumerate_all(space):
        assert float(tables.expected([g.double() for g in archs.gates(space, arch)])) == tables.cost(arch)


def test_describe():
    assert archs.describe(Plain(), (2, 1, 0)) == {"depth": 4, "op": "b", "one": 0}


def test_sample_feasible_meets_the_budget_even_a_tight_one():
    rng = numpy_rng(0)
    for limit in (0, 1, 3, 5):
        for tries in (0, 100):
            drawn = {archs.sample_feasible(problem(limit), rng, tries) for _ in range(50)}
            assert all(sum(a) <= limit for a in drawn)
            assert limit == 0 or len(drawn) > 1


def test_an_impossible_budget_is_an_error():
    with pytest.raises(BudgetError, match="Plain"):
        archs.sample_feasible(problem(-1), numpy_rng(0), 3)

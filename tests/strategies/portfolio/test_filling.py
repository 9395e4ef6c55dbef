from __future__ import annotations

import numpy as np
import pytest
import torch

from sartor.core.contracts import CostModel, Problem, Space
from sartor.core.errors import BudgetError
from sartor.core.records import Choice, Objective
from sartor.strategies.portfolio.filling import Filler


class Wide(Space):
    choices = (
        Choice("a", tuple(range(1, 17)), ordered=True),
        Choice("b", tuple(range(2, 33, 2)), ordered=True),
        Choice("kind", ("plain", "fancy")),
    )

    def build(self, arch):
        raise AssertionError("a search builds no network")

    def scaled(self, factor):
        return (*(int(np.clip(round(16 * factor) - 1, 0, 15)) for _ in range(2)), 1)


class Area(CostModel):
    metric = "area"

    def __call__(self, archs):
        return torch.tensor([self.of(a) for a in archs], dtype=torch.float64)

    def of(self, arch):
        a, b, kind = (c.options[i] for c, i in zip(Wide.choices, arch, strict=True))
        return a * b + (5 if kind == "fancy" else 0)


PROBLEM = Problem(Wide(), (Objective("quality", "max"),), costs={"area": Area()})


def filler(limit):
    return Filler(PROBLEM, {"area": limit})


def area(arch):
    return Area().of(arch)


@pytest.mark.parametrize("limit", [30, 100, 257, 400])
def test_a_plan_uses_the_budget_up(limit):
    arch = filler(limit).along(Wide().scaled)
    assert area(arch) <= limit
    for i in range(2):  # nothing more fits
        if arch[i] < 15:
            assert area((*arch[:i], arch[i] + 1, *arch[i + 1 :])) > limit


def test_what_fits_whole_stays_whole():
    assert filler(1000).along(Wide().scaled) == (15, 15, 1)


def test_a_plan_that_misses_the_budget_is_left_out():
    fixed = filler(100).plans({"uniform": Wide().scaled, "whole": lambda _: (15, 15, 1)})
    assert set(fixed) == {"uniform"}


def test_if_no_plan_meets_it_the_smallest_network_is_filled_up():
    (arch,) = filler(40).plans({"whole": lambda _: (15, 15, 1)}).values()
    assert 36 <= area(arch) <= 40


def test_proportions_are_kept():
    tall = filler(100).scaled((15, 3, 0))
    a, b, kind = (c.options[i] for c, i in zip(Wide.choices, tall, strict=True))
    assert 1.5 < (a / 16) / (b / 32) < 6
    assert kind == "plain"
    assert 90 < area(tall) <= 100


def test_a_smaller_network_grows():
    assert area(filler(300).scaled((3, 3, 0))) > 280


def test_scaling_is_by_logarithms():
    space = filler(200)
    arch = space.scaled_to(np.log(np.array([1.0, 0.25, 1.0])))
    a, b, _ = (c.options[i] for c, i in zip(Wide.choices, arch, strict=True))
    assert area(arch) <= 200
    assert a == 16
    assert b == 12


def test_a_budget_that_nothing_meets():
    with pytest.raises(BudgetError, match="loosen the budget"):
        filler(1).along(Wide().scaled)
    with pytest.raises(BudgetError, match="smallest network"):
        filler(1).scaled((3, 3, 0))

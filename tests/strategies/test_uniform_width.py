from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from problems import small_problem
from sartor.core.errors import BudgetError, CapabilityError
from sartor.core.records import Constraint
from sartor.solvers.budgets import within
from sartor.strategies.uniform_width import UniformWidth


@pytest.mark.parametrize("share", [0.25, 0.4, 0.5, 0.75, 0.99, 1.0, 3.0])
def test_is_the_widest_scaling_that_fits(share):
    problem = small_problem()
    limits = {"macs": share * float(problem.cost("macs")([problem.space.reference])[0])}
    ladder = [problem.space.scaled(float(f)) for f in np.linspace(0, 4, 4001)]
    assert UniformWidth(problem, 0).solve(limits) == [a for a in ladder if within(problem, a, limits)][-1]


def test_refuses_a_budget_that_no_scaling_meets():
    with pytest.raises(BudgetError, match="no uniform scaling"):
        UniformWidth(replace(small_problem(), constraints=(Constraint("macs", 1.0),)), 0)


def test_needs_a_space_that_scales():
    from sartor.core.contracts import Space

    class Plain(Space):
        choices = small_problem().space.choices

        def build(self, arch):
            raise AssertionError

    with pytest.raises(CapabilityError, match="Scalable"):
        UniformWidth(replace(small_problem(), space=Plain()), 0)

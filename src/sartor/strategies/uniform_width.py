"""Uniform width: scale all layers by one factor until the budget is met; what one does without a search."""

from __future__ import annotations

from collections.abc import Mapping

from sartor import archs
from sartor.core.abilities import Scalable, require
from sartor.core.contracts import Lab, Problem, Strategy
from sartor.core.errors import BudgetError
from sartor.core.records import Arch, Proposal
from sartor.solvers.budgets import bisected, levels, within

__all__ = ["UniformWidth"]

BISECTIONS = 40
"""Halvings of the interval of factors: far finer than any two neighbouring options."""


class UniformWidth(Strategy):
    """The widest uniform scaling of the reference within each budget level.

    Args:
        problem: With a `Scalable` space and cost models for every limit.
        seed: Not used.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        del seed  # nothing is random
        self.problem = problem
        self.space = require(problem.space, Scalable, self)
        self.proposals = [Proposal(a) for a in dict.fromkeys(map(self.solve, levels(problem)))]

    def step(self, lab: Lab) -> bool:
        """Evaluate the scaling of every budget level."""
        lab.evaluate(self.proposals)
        return False

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The widest uniform scaling under `limits`, metric -> upper bound.

        Raises:
            BudgetError: Not even the narrowest scaling meets them.
        """
        low, high = 0.0, self._widest_factor()
        if not self._fits(low, limits):
            raise BudgetError(f"no uniform scaling meets {dict(limits)}; loosen the budget")
        if self._fits(high, limits):
            return self._arch(high)
        return self._arch(bisected(lambda factor: self._fits(factor, limits), low, high, BISECTIONS)[0])

    def _widest_factor(self) -> float:
        """A factor that gives the widest network (or one at which every layer must have reached its last option)."""
        factor, widest = 1.0, archs.largest(self.problem.space)
        while self._arch(factor) != widest and factor < 2**16:
            factor *= 2
        return factor

    def _arch(self, factor: float) -> Arch:
        return self.problem.space.canonical(self.space.scaled(factor))

    def _fits(self, factor: float, limits: Mapping[str, float]) -> bool:
        return within(self.problem, self._arch(factor), limits)

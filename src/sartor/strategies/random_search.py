"""Random search: uniform among the networks that meet the budget; the yardstick of every other strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sartor import archs
from sartor.core.contracts import AskTell, Problem
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Constraint, Proposal, Trial
from sartor.core.rng import numpy_rng
from sartor.solvers.budgets import within

__all__ = ["RandomSearch"]


class RandomSearch(AskTell):
    """Uniform random feasible networks.

    Args:
        problem: Any problem.
        seed: Of the draws.
        trials: How many networks are evaluated.
        batch: How many are proposed at a time.
    """

    saved = ("rng", "trials")
    smoke = {"trials": 10}

    def __init__(self, problem: Problem, seed: int, *, trials: int = 100, batch: int = 4) -> None:
        if trials < 1 or batch < 1:
            raise ConfigError(f"trials is {trials} and batch is {batch}; both must be at least 1")
        self.problem, self.seed, self.total, self.batch = problem, seed, trials, batch
        self.rng = numpy_rng(seed, "archs")
        self.trials: list[Trial] = []

    def ask(self) -> list[Proposal]:
        """The next batch."""
        count = min(self.batch, self.total - len(self.trials))
        return [Proposal(archs.sample_feasible(self.problem, self.rng)) for _ in range(count)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Keep them for `solve`."""
        self.trials = [*self.trials, *trials]

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The best evaluated arch under `limits`; if none meets them, a random one that does.

        Raises:
            BudgetError: No arch meets them.
        """
        known = [t for t in self.trials if within(self.problem, t.arch, limits)]
        if known:
            return min(known, key=self.problem.objectives[0].loss).arch
        tight = replace(self.problem, constraints=tuple(Constraint(m, upper) for m, upper in limits.items()))
        return archs.sample_feasible(tight, numpy_rng(self.seed, "solve"))

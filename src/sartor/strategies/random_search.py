"""Random search: uniform among the networks that meet the budget; the yardstick of every other strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sartor.core.contracts import AskTell, Problem
from sartor.core.records import Arch, Proposal, Trial
from sartor.core.rng import numpy_rng
from sartor.regions.region import Region, answer, at_least_one

__all__ = ["RandomSearch"]


class RandomSearch(AskTell):
    """Uniform random feasible networks.

    Args:
        problem: Any problem.
        seed: Of the draws.
        trials: How many networks are evaluated.
        batch: How many are proposed at a time.
    """

    saved = ("rng",)
    smoke = {"trials": 10}

    def __init__(self, problem: Problem, seed: int, *, trials: int = 100, batch: int = 4) -> None:
        at_least_one(trials=trials, batch=batch)
        self.problem, self.seed, self.total, self.batch = problem, seed, trials, batch
        self.region, self.rng = Region(problem), numpy_rng(seed, "archs")
        self.trials: list[Trial] = []

    def ask(self) -> list[Proposal]:
        """The next batch."""
        count = min(self.batch, self.total - len(self.trials))
        return [Proposal(self.region.sample(self.rng)) for _ in range(count)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Keep them for `solve`."""
        self.trials += trials

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The best evaluated arch under `limits`; if none meets them, a random one that does.

        Raises:
            BudgetError: No arch meets them.
        """
        return answer(self.problem, self.trials, limits, numpy_rng(self.seed, "solve"))

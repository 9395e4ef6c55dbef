"""Hyperband: successive halving with few networks trained long, and with many trained shortly (Li et al., JMLR 2018).

All brackets of the paper's table, the most hurried one first (arXiv:1603.06560). Deviations: brackets go round until
`trials` are used; a network that is promoted is trained anew, not continued; a failed one is never promoted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sartor.core.contracts import AskTell, Problem
from sartor.core.records import Arch, Proposal, Trial
from sartor.core.rng import numpy_rng
from sartor.regions.brackets import Brackets, hyperband, steps
from sartor.regions.region import Region, answer, at_least_one

__all__ = ["Hyperband"]


class Hyperband(AskTell):
    """Random networks in knock-outs that start at different fidelities.

    Args:
        problem: Any problem; its evaluator should be cheaper at a lower fidelity.
        seed: Of the draws.
        trials: How many evaluations are made, whatever their fidelity.
        batch: How many are proposed at a time.
        eta: One in so many is promoted, and trained so many times longer.
        least: Smallest fidelity, as a fraction of the full training; rounded up to a power of `1 / eta`.
    """

    saved = ("rng", "trials", "brackets")
    smoke = {"trials": 20, "batch": 4, "least": 1 / 3}

    def __init__(
        self, problem: Problem, seed: int, *, trials: int = 100, batch: int = 1, eta: int = 3, least: float = 1 / 9
    ) -> None:
        at_least_one(trials=trials, batch=batch)
        self.problem, self.seed, self.total, self.batch = problem, seed, trials, batch
        self.brackets = Brackets(hyperband(steps(least, eta), eta))
        self.region, self.rng = Region(problem), numpy_rng(seed, "archs")
        self.trials: list[Trial] = []

    def ask(self) -> list[Proposal]:
        """The next networks of the rung."""
        count = min(self.batch, self.total - len(self.trials))
        return self.brackets.ask(count, lambda: self.region.sample(self.rng))

    def tell(self, trials: Sequence[Trial]) -> None:
        """When the rung is complete, the best are promoted."""
        self.trials += trials
        self.brackets.tell([(t.arch, self.problem.objectives[0].loss(t)) for t in trials])

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The best evaluated network under `limits`, at the highest fidelity; if none meets them, a random one.

        Raises:
            BudgetError: No network meets them.
        """
        return answer(self.problem, self.trials, limits, numpy_rng(self.seed, "solve"))

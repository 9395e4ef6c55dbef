"""Searches by knock-out: networks drawn within the budget go through brackets of rising fidelity, over and over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sartor.core.contracts import AskTell, Problem
from sartor.core.records import Arch, Proposal, Trial
from sartor.core.rng import numpy_rng
from sartor.regions.brackets import Brackets, Rung
from sartor.regions.region import Region, answer, at_least_one


class Knockout(AskTell):
    """What successive halving, Hyperband and BOHB have in common; they differ in brackets, and in what they draw.

    Args:
        problem: Any problem; its evaluator should be cheaper at a lower fidelity.
        seed: Of the draws.
        brackets: The rungs of each.
        trials: How many evaluations are made, whatever their fidelity.
        batch: How many are proposed at a time.
    """

    saved = ("rng", "brackets")

    def __init__(
        self, problem: Problem, seed: int, brackets: Sequence[Sequence[Rung]], *, trials: int, batch: int
    ) -> None:
        at_least_one(trials=trials, batch=batch)
        self.problem, self.seed, self.total, self.batch = problem, seed, trials, batch
        self.brackets = Brackets(brackets)
        self.region, self.rng = Region(problem), numpy_rng(seed, "archs")
        self.trials: list[Trial] = []

    def draw(self) -> Arch:
        """A new network for the first rung of a bracket: any within the budget, with equal probability."""
        return self.region.sample(self.rng)

    def ask(self) -> list[Proposal]:
        """The next networks of the rung."""
        return self.brackets.ask(min(self.batch, self.total - len(self.trials)), self.draw)

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

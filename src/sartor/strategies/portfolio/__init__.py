"""Many plain plans, weighed by a short look each, the best combined; then a knock-out with short trainings.

No single way to narrow a network is good everywhere. So every plan of the space (`Scalable.plans`: uniform, blocks
only, residual streams only, early or late layers, equal error of the layers, ...) is brought to the budget and filled
up; what is best after a look without training is combined, by differential evolution on the logarithms of the widths;
the best of all go through a knock-out of short trainings.

Sources: differential evolution, Storn and Price (Journal of Global Optimization 1997); successive halving, Jamieson and
Talwalkar (AISTATS 2016). Deviations: the first population are the plans; every child is scaled to the budget, so that
only networks that use it compete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sartor.core.abilities import Pretrained, Scalable, require
from sartor.core.contracts import AskTell, Problem
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Proposal, Trial
from sartor.core.rng import numpy_rng
from sartor.regions.region import at_least_one
from sartor.solvers.budgets import levels
from sartor.strategies.portfolio.filling import Filler

__all__ = ["Portfolio"]

LOOK = 0.01
"""Fidelity of a look without training."""
POPULATION = 8
"""Of the best networks so many are combined."""


class Portfolio(AskTell):
    """The best of several plans and of what is between and beyond them.

    Args:
        problem: With a `Scalable` space of ordered choices and cost models for every limit.
        seed: Of the combinations.
        refine: Combinations that are looked at, per level of the budget; none where networks are untrained, as a look
            would then say nothing.
        batch: How many of them are proposed at a time.
        finalists: Networks in the first round of the knock-out; the plan `uniform` is always one. 0 has none: the best
            look is the answer.
        eta: One in so many goes on to the next round, in which it is trained so many times longer.
        first: Fidelity of the first round, and of the plans themselves where networks are untrained.
    """

    saved = ("level", "round")
    smoke = {"refine": 4, "batch": 2, "finalists": 2}
    evaluator = "probe"

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        refine: int = 24,
        batch: int = 4,
        finalists: int = 4,
        eta: int = 2,
        first: float = 0.125,
    ) -> None:
        at_least_one(batch=batch)
        if refine < 0 or finalists < 0 or eta < 2 or not LOOK < first <= 1:
            raise ConfigError(
                f"refine is {refine}, finalists {finalists}, eta {eta} and first {first}; refine and finalists must be "
                f"at least 0, eta at least 2, first in ({LOOK:g}, 1]"
            )
        self.problem, self.seed = problem, seed
        space = problem.space
        trained = isinstance(space, Pretrained) and space.trained
        self.look, self.first = (LOOK, first) if trained else (first, first * eta)
        """Fidelity of the plans and combinations, and of the first round after them."""
        self.refine, self.batch, self.finalists, self.eta = refine if trained else 0, batch, finalists, eta
        self.plans = require(space, Scalable, self).plans()
        self.limits = levels(problem)
        self.trials: list[Trial] = []
        self.level, self.round = 0, 0
        """Which level of the budget; and how far: 0 the plans, then combinations, then the rounds of the knock-out."""

    def ask(self) -> list[Proposal]:
        """The plans, a batch of combinations, or a round of the knock-out; empty when every level is done.

        Raises:
            BudgetError: No network meets a level of the budget.
        """
        while self.level < len(self.limits):
            found = self._next()
            if found:
                return found
            self.level, self.round = self.level + 1, 0
        return []

    def tell(self, trials: Sequence[Trial]) -> None:
        """Keep the results."""
        self.trials += trials
        self.round += 1

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The best network's proportions under `limits`, metric -> upper bound, filled up.

        Raises:
            BudgetError: Not even the smallest network meets them.
        """
        filler = Filler(self.problem, limits)
        known = [t for t in self.trials if t.ok]
        if not known:
            return filler.along(self.plans["uniform"])
        near = [t for t in known if NEAR[0] <= max(filler.region.ratios(t.arch), default=1.0) <= NEAR[1]] or known
        top = max(t.fidelity for t in near)
        best = min((t for t in near if t.fidelity == top), key=self._rank)
        return filler.scaled(best.arch)

    def _next(self) -> list[Proposal]:
        filler = Filler(self.problem, self.limits[self.level])
        if self.round == 0:
            return [Proposal(arch, self.look) for arch in dict.fromkeys(filler.plans(self.plans).values())]
        rounds = -(-self.refine // self.batch)
        if self.round <= rounds:
            count = min(self.batch, self.refine - (self.round - 1) * self.batch)
            found = self._combined(filler, count)
            if found:
                return [Proposal(arch, self.look) for arch in found]
            self.round = rounds + 1
        return self._knockout(filler, self.round - rounds - 1)

    def _knockout(self, filler: Filler, number: int) -> list[Proposal]:
        """A round: the best of the one before, trained longer."""
        count, fidelity = self.finalists // self.eta**number, self.first * self.eta**number
        if not count or fidelity > 1:
            return []
        before = self.look if number == 0 else fidelity / self.eta
        ranked = [t.arch for t in self._tried(filler, before)][:count]
        if number == 0:
            ranked = list(dict.fromkeys([*ranked[: max(1, count - 1)], filler.along(self.plans["uniform"])]))[:count]
        return [Proposal(arch, fidelity) for arch in ranked]

    def _tried(self, filler: Filler, fidelity: float) -> list[Trial]:
        """The networks of this level that were evaluated at a fidelity, best first, each once."""
        found = [t for t in self.trials if t.ok and abs(t.fidelity - fidelity) < 1e-9 and t.arch in filler.region]
        best = dict[Arch, Trial]()
        for trial in sorted(found, key=self._rank):
            best.setdefault(trial.arch, trial)
        return list(best.values())

    def _rank(self, trial: Trial) -> float:
        """Lower is better: the distance from the original after a look, the objective after a training."""
        distance = trial.metrics.get("distance") if trial.fidelity <= self.look else None
        return self.problem.objectives[0].loss(trial) if distance is None else distance

    def _combined(self, filler: Filler, count: int) -> list[Arch]:
        """New networks between and beyond the best ones."""
        population = [t.arch for t in self._tried(filler, self.look)][:POPULATION]
        if len(population) < MIN_POPULATION:
            return []
        rng = numpy_rng(self.seed, "combine", len(self.trials))
        known, found = {t.arch for t in self.trials}, list[Arch]()
        for _ in range(TRIES * count):
            if len(found) == count:
                break
            arch = filler.scaled_to(_child(population, filler, rng))
            if arch not in known:
                known.add(arch)
                found.append(arch)
        return found


NEAR = (0.8, 1.25)
"""Networks whose cost is this share of a limit say something about it."""
MIN_POPULATION = 3
TRIES = 10
"""Draws for every network that is wanted: many turn out to be known."""
CROSSED, NOISE = 0.6, 0.08
"""Share of the choices that a child takes the difference in; and how much further each of them is moved."""


def _child(population: Sequence[Arch], filler: Filler, rng: np.random.Generator) -> np.ndarray:
    """Logarithms of widths: one of the three best, and a share of the difference between two others."""
    parent = filler.logs(population[int(rng.integers(min(3, len(population))))])
    one, two = (filler.logs(population[int(i)]) for i in rng.choice(len(population), 2, replace=False))
    crossed = rng.random(len(parent)) < CROSSED
    return parent + crossed * (rng.uniform(0.2, 0.8) * (one - two) + NOISE * rng.standard_normal(len(parent)))

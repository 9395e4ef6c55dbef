"""Regularized evolution: mutate the best of a sample, drop the oldest (Real et al., AAAI 2019, arXiv:1802.01548).

The settings' defaults are those of NATS-Bench (Dong et al., TPAMI 2021), where ten networks live, three compete to be
the parent, drawn with replacement, and one choice changes. Deviations:

* A child outside of the budget is mutated anew from the same parent; after a hundred tries it is repaired.
* A failed network neither joins the population nor counts towards the first one.
* With `batch` above one, the children of a batch have their parents in the same population.
* With `window` above one, it goes on while networks are under way, as many workers need it: asynchronous evolution, but
  in a fixed order, so that what is found does not depend on who is faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Literal

from sartor.core.contracts import AskTell, Problem
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Proposal, Trial
from sartor.core.rng import numpy_rng
from sartor.regions.region import Region, answer, at_least_one

__all__ = ["RegularizedEvolution"]


class RegularizedEvolution(AskTell):
    """Evolution where every network dies of age.

    Args:
        problem: Any problem.
        seed: Of all draws.
        trials: How many networks are evaluated.
        batch: How many are proposed at a time.
        window: Batches that are under way at a time: batch k is proposed when batch k - window is known.
        population: How many networks live.
        sample: How many of them compete to be the parent.
        replacement: Whether the same network may be drawn twice into a sample.
        mutation: What happens to one choice: `different` takes another option, `any` any option, the same included,
            `neighbour` an adjacent one if the choice is ordered.
    """

    saved = ("rng", "waiting")
    smoke = {"trials": 17, "batch": 3, "population": 5}

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        trials: int = 100,
        batch: int = 1,
        window: int = 1,
        population: int = 10,
        sample: int = 3,
        replacement: bool = True,
        mutation: Literal["different", "any", "neighbour"] = "different",
    ) -> None:
        at_least_one(trials=trials, batch=batch, window=window, population=population, sample=sample)
        if sample > population and not replacement:
            raise ConfigError(f"sample is {sample}, more than the population of {population}; draw with replacement")
        if mutation not in {"different", "any", "neighbour"}:
            raise ConfigError(f"mutation is {mutation!r}; it must be different, any or neighbour")
        self.problem, self.seed, self.total, self.batch, self.window = problem, seed, trials, batch, window
        self.size, self.sample, self.replacement, self.mutation = population, sample, replacement, mutation
        self.region, self.rng = Region(problem), numpy_rng(seed, "evolution")
        self.movable = [i for i, c in enumerate(problem.space.choices) if len(c.options) > 1]
        self.trials: list[Trial] = []
        self.population: list[Trial] = []
        """Oldest first: the latest trials that have not failed."""

    def ask(self) -> list[Proposal]:
        """Random networks until the population is full, children then."""
        count = min(self.batch, self.total - len(self.trials) - sum(map(len, self.waiting)))
        missing = self.size - len(self.population)
        if missing > 0:
            return [Proposal(self.region.sample(self.rng)) for _ in range(min(count, missing))]
        return [Proposal(self._child()) for _ in range(count)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """The young enter, the oldest leave."""
        self.trials += trials
        self.population = [*self.population, *(t for t in trials if t.ok)][-self.size :]

    def recall(self, trials: Sequence[Trial]) -> None:
        """The population follows from the trials."""
        super().recall(trials)
        young = islice((t for t in reversed(self.trials) if t.ok), self.size)
        self.population = list(young)[::-1]

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The best evaluated network under `limits`; if none meets them, a random one that does.

        Raises:
            BudgetError: No network meets them.
        """
        return answer(self.problem, self.trials, limits, numpy_rng(self.seed, "solve"))

    def _child(self) -> Arch:
        if self.replacement:
            picks = self.rng.integers(self.size, size=self.sample)
        else:
            picks = self.rng.permutation(self.size)[: self.sample]
        parent = min((self.population[i] for i in picks.tolist()), key=self.problem.objectives[0].loss)
        return self.region.first(lambda: self._mutated(parent.arch), self.rng)

    def _mutated(self, arch: Arch) -> Arch:
        if not self.movable:
            return arch
        if self.mutation == "neighbour":
            return self.problem.space.moves.vary(arch, self.rng)
        i = self.movable[int(self.rng.integers(len(self.movable)))]
        options = len(self.problem.space.choices[i].options)
        if self.mutation == "any":
            option = int(self.rng.integers(options))
        else:
            option = (arch[i] + 1 + int(self.rng.integers(options - 1))) % options
        return self.problem.space.canonical((*arch[:i], option, *arch[i + 1 :]))

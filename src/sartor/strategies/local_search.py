"""Local search: move to the best neighbour until none is better, then restart (White et al., UAI 2021).

Source: arXiv:2005.02960, algorithm 1. Deviations: a network that has been evaluated is not evaluated again, its result
is remembered; neighbours outside of the budget are not evaluated; after a local optimum the search restarts, where the
paper stops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from sartor.core.contracts import AskTell, Problem
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Proposal, Trial
from sartor.core.rng import numpy_rng
from sartor.regions.region import Region, answer, at_least_one

__all__ = ["LocalSearch"]

TRIES = 1000
"""Draws for a network to restart from that has not been evaluated; the search is over where all of them have been."""


class LocalSearch(AskTell):
    """Hill climbing over all networks that differ in one choice, in random order.

    Args:
        problem: Any problem.
        seed: Of the starts and of the order of the neighbours.
        trials: How many networks are evaluated; fewer where a small space is exhausted.
        batch: How many are proposed at a time.
        starts: Random networks per start, of which the best is climbed from.
        move: `best` evaluates all neighbours before it moves, `first` moves as soon as one is better.
        step: `any` other option of a choice makes a neighbour, or only an `adjacent` one where the choice is ordered.
    """

    saved = ("rng", "queue", "start", "incumbent")
    smoke = {"trials": 17, "batch": 3, "step": "adjacent"}

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        trials: int = 100,
        batch: int = 1,
        starts: int = 1,
        move: Literal["best", "first"] = "best",
        step: Literal["any", "adjacent"] = "any",
    ) -> None:
        at_least_one(trials=trials, batch=batch, starts=starts)
        if move not in {"best", "first"} or step not in {"any", "adjacent"}:
            raise ConfigError(f"move is {move!r} and step is {step!r}; they are best or first, and any or adjacent")
        self.problem, self.seed, self.total, self.batch = problem, seed, trials, batch
        self.starts, self.move, self.adjacent = starts, move, step == "adjacent"
        self.region, self.rng = Region(problem), numpy_rng(seed, "local")
        self.trials: list[Trial] = []
        self.queue: list[Arch] = []
        """What is still to be evaluated before the next decision."""
        self.start: list[Arch] = []
        """The networks of the latest start."""
        self.incumbent: Arch | None = None
        """The network whose neighbours are looked at; None while a start is evaluated."""
        self._known: dict[Arch, float] = {}
        self._told, self._seen = self.trials, 0

    def ask(self) -> list[Proposal]:
        """The next neighbours, or the networks of a new start."""
        count = min(self.batch, self.total - len(self.trials))
        if count < 1:
            return []
        while not self.queue and self._decide():
            pass
        return [Proposal(arch) for arch in self.queue[:count]]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Remember them; move at once if that is wanted and one is better."""
        self.trials += trials
        self.queue = self.queue[len(trials) :]
        if self.move == "first" and self.incumbent is not None:
            best = min((t.arch for t in trials), key=self._losses().__getitem__)
            if self._losses()[best] < self._losses()[self.incumbent]:
                self._climb_from(best)

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The best evaluated network under `limits`; if none meets them, a random one that does.

        Raises:
            BudgetError: No network meets them.
        """
        return answer(self.problem, self.trials, limits, numpy_rng(self.seed, "solve"))

    def _decide(self) -> bool:
        """All of the queue is known: move, climb from the best start, or restart; False if there is nothing left."""
        known = self._losses()
        if self.incumbent is None:
            if not self.start:
                return self._restart()
            self._climb_from(min(self.start, key=known.__getitem__))
            return True
        around = [a for a in self._neighbours(self.incumbent) if a in known]
        best = min(around, key=known.__getitem__, default=self.incumbent)
        if known[best] < known[self.incumbent]:
            self._climb_from(best)
            return True
        return self._restart()

    def _climb_from(self, arch: Arch) -> None:
        known = self._losses()
        self.incumbent = arch
        if self.move == "first":
            better = [a for a in self._neighbours(arch) if known.get(a, float("inf")) < known[arch]]
            if better:
                self._climb_from(min(better, key=known.__getitem__))
                return
        fresh = [a for a in self._neighbours(arch) if a not in known]
        self.queue = [fresh[i] for i in self.rng.permutation(len(fresh)).tolist()]

    def _restart(self) -> bool:
        self.incumbent, found = None, dict[Arch, None]()
        for _ in range(TRIES):
            arch = self.region.sample(self.rng)
            if arch not in self._losses():
                found[arch] = None
            if len(found) == self.starts:
                break
        self.queue = self.start = list(found)
        return bool(found)

    def _neighbours(self, arch: Arch) -> list[Arch]:
        space = self.problem.space
        if self.adjacent:
            return [a for a in space.moves.neighbours(arch) if a in self.region]
        found = dict.fromkeys(
            space.canonical((*arch[:i], k, *arch[i + 1 :]))
            for i, choice in enumerate(space.choices)
            for k in range(len(choice.options))
        )
        return [a for a in found if a != arch and a in self.region]

    def _losses(self) -> dict[Arch, float]:
        """Loss of every network evaluated, brought up to date; not saved, as the trials say it all."""
        if self._told is not self.trials:
            self._told, self._known, self._seen = self.trials, {}, 0
        for trial in self.trials[self._seen :]:
            self._known[trial.arch] = self.problem.objectives[0].loss(trial)
        self._seen = len(self.trials)
        return self._known

"""One-shot search: train a supernet with dropped paths, then evaluate networks cut out of it (Bender et al., 2018).

After "Understanding and simplifying one-shot architecture search" (ICML 2018): no preferences are learned; the supernet
is trained so that its sub-networks rank like networks trained alone, and random ones are evaluated. Other trainings:
`paths = "uniform"` (Guo et al., "Single path one-shot", ECCV 2020) and `"fair"` (Chu et al., "FairNAS", ICCV 2021).
Deviations:

* Networks are drawn within the limits. To the best of them come, at the end, the networks that an additive model of all
  trials thinks best under each budget, found exactly and evaluated like the others (`refine` rounds). With `refine = 0`
  the best of the random ones wins, as in the paper.
* A choice whose paths are all dropped keeps one at random; see `sartor.supernet.paths`.
* Batch statistics of a network are those of a few training batches (`evaluator = "inherited"`) instead of the batch's.
* Fair rounds deal options from decks, so that choices may differ in how many options they have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from sartor import archs
from sartor.core import trees
from sartor.core.contracts import Lab, Problem, Strategy
from sartor.core.errors import ConfigError, StateError
from sartor.core.records import Arch, Proposal, Trial
from sartor.core.rng import numpy_rng, torch_rng
from sartor.core.tables import Tables
from sartor.core.trees import Inputs, Tree
from sartor.solvers.budgets import Budget, feasible_levels, within
from sartor.supernet.paths import Decks, dropped_gates
from sartor.supernet.statistics import Statistics
from sartor.supernet.weights import Training, cosine, decay_active

__all__ = ["OneShot"]

Paths: TypeAlias = Literal["dropout", "uniform", "fair"]


class OneShot(Strategy):
    """Random networks with shared weights.

    Args:
        problem: A task, a `Shareable` space, and limits whose cost models offer `Terms`.
        seed: Of everything random.
        epochs: Of supernet training; one is one step.
        paths: `dropout` of paths, one `uniform` path, or `fair` rounds of paths, whose gradients make one step.
        rate: Of `dropout`: the probability that all paths of a choice are dropped, at the end of the training.
        scaled: Of `dropout`: whether a path's output is divided by its probability to stay.
        ghost: Images per ghost batch, which has its own paths and batch statistics; the last may be up to twice as
            large. Fair rounds run the whole batch on every path.
        samples: Random networks to evaluate.
        batch: Networks per step.
        refine: Rounds in which the additive model's best networks are evaluated.
        lr: Learning rate of SGD per 256 images of a batch, along a cosine.
        weight_decay: Of what ran, and of that only.
        device: `cpu` or `cuda`.
    """

    saved = ("training", "rng", "decks", "draws", "rounds")
    smoke = {"epochs": 2, "samples": 4, "batch": 3, "ghost": 8, "refine": 1}
    evaluator = "inherited"
    shares_weights = True

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        epochs: int = 60,
        paths: Paths = "dropout",
        rate: float = 0.1,
        scaled: bool = False,
        ghost: int = 32,
        samples: int = 200,
        batch: int = 20,
        refine: int = 3,
        lr: float = 0.1,
        weight_decay: float = 4e-5,
        device: str = "cpu",
    ) -> None:
        if paths not in get_args(Paths):
            raise ConfigError(f"OneShot has no paths {paths!r}; use one of {', '.join(get_args(Paths))}")
        if not 0 < rate < 1 or min(ghost, samples, batch) < 1 or refine < 0:
            raise ConfigError(
                f"OneShot has rate = {rate} and (ghost, samples, batch, refine) = {(ghost, samples, batch, refine)}; "
                "the rate must be in (0, 1), refine not negative, the others at least 1"
            )
        self.problem, self.paths, self.rate, self.scaled, self.ghost = problem, paths, rate, scaled, ghost
        self.samples, self.batch, self.refine, self.lr, self.weight_decay = samples, batch, refine, lr, weight_decay
        self.levels = feasible_levels(problem, self)
        sgd = partial(torch.optim.SGD, lr=lr, momentum=0.9, nesterov=True)
        self.training = Training(problem, seed, by=self, epochs=epochs, optimizer=sgd, device=device)
        self.rng, self.draws = torch_rng(seed, "paths"), numpy_rng(seed, "draws")
        self.decks = Decks(problem.space.choices)
        self.trials: list[Trial] = []
        self.rounds = 0
        """Of refinement, done."""

    def step(self, lab: Lab) -> bool:
        """One epoch, then one batch of random networks, then one round of the model's best."""
        if not self.training.finished:
            (loss,) = self.training.train(lab, self._step)
            lab.log(epoch=self.training.done, loss=loss)
            if self.training.done == self.training.epochs:
                self.training.save_weights(lab)
            return True
        if len(self.trials) < self.samples:
            self._evaluate(lab, self._random(min(self.batch, self.samples - len(self.trials))))
            return True
        self.rounds += 1
        known = {t.arch for t in self.trials}
        wanted = [a for a in dict.fromkeys(map(self._modelled, self.levels)) if a not in known]
        if self.rounds > self.refine or not wanted:
            return False
        self._evaluate(lab, wanted)
        return True

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The best trial under `limits`, or the additive model's best where that is thought better.

        Raises:
            BudgetError: No arch meets them.
            StateError: Nothing was evaluated yet.
        """
        if not any(t.ok for t in self.trials):
            raise StateError("OneShot has evaluated no network yet, so none is the best; let it run longer")
        modelled, losses = self._modelled(limits), self._losses()
        inside = [t for t in self.trials if t.ok and within(self.problem, t.arch, limits)]
        if not inside:
            return modelled
        best = min(inside, key=self.problem.objectives[0].loss)
        known = {t.arch for t in inside}
        if not self.refine or modelled in known or losses.cost(modelled) >= self.problem.objectives[0].loss(best):
            return best.arch
        return modelled

    def _step(self, x: Inputs, y: Tree) -> Tensor:
        """One step of the optimiser from all ghost batches, or from a round of paths; the mean loss."""
        self.training.pace(cosine(self.training.progress, self.lr) * trees.size(x) / 256)
        self.training.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), dtype=torch.float64)
        for part, target, gates, share in self._parts(x, y):
            loss = self.training.loss(part, target, gates) * share
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach().double().cpu()
        decay_active(self.training.parameters, self.weight_decay)
        self.training.optimizer.step()
        return total

    def _parts(self, x: Inputs, y: Tree) -> list[tuple[Inputs, Tree, list[Tensor], float]]:
        """Images, labels, gates and weight of every forward pass."""
        if self.paths == "fair":
            drawn = [self.training.hard(self.decks.path(self.rng)) for _ in range(self.decks.round)]
            return [(x, y, gates, 1 / len(drawn)) for gates in drawn]
        total = trees.size(x)
        parts = trees.parts((x, y), max(1, total // self.ghost))
        return [(images, labels, self._gates(), trees.size(images) / total) for images, labels in parts]

    def _gates(self) -> list[Tensor]:
        choices = self.problem.space.choices
        if self.paths == "uniform":
            path = [int(torch.randint(len(c.options), (), generator=self.rng)) for c in choices]
            return self.training.hard(path)
        gates = dropped_gates(choices, self.rate, self.training.progress, self.rng, scaled=self.scaled)
        return [gate.to(self.training.like) for gate in gates]

    def _random(self, count: int) -> list[Arch]:
        """Random networks, in turn within each budget level."""
        start = len(self.trials)
        return [self._within(self.levels[(start + i) % len(self.levels)]) for i in range(count)]

    def _within(self, limits: Mapping[str, float]) -> Arch:
        narrow = tuple(replace(c, upper=limits[c.metric], levels=()) for c in self.problem.constraints)
        return archs.sample_feasible(replace(self.problem, constraints=narrow), self.draws, tries=100)

    def _evaluate(self, lab: Lab, wanted: Sequence[Arch]) -> None:
        self.trials += lab.evaluate([Proposal(arch) for arch in wanted])

    def _losses(self) -> Tables:
        """The additive model of the trials' losses, in units of the objective."""
        choices, objective = self.problem.space.choices, self.problem.objectives[0]
        good = [t for t in self.trials if t.ok]
        if not good:
            return Tables.zeros(choices)
        losses = torch.tensor([objective.loss(t) for t in good], dtype=torch.float64)
        statistics = Statistics(choices, half_life=1.0)
        statistics.add(torch.tensor([t.arch for t in good]), losses - losses.mean())
        statistics.tune()
        tables = statistics.losses("least_squares") * len(choices)
        return replace(tables, constant=tables.constant + float(losses.mean()))

    def _modelled(self, limits: Mapping[str, float]) -> Arch:
        canonical: Callable[[Arch], Arch] = self.problem.space.canonical
        return canonical(Budget.of(self.problem, limits, self).best(self._losses()))

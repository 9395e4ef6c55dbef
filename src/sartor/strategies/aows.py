"""AOWS: like OWS, but training narrows to the widths that the budget will choose (Berman et al., CVPR 2020, section 4).

After a warm-up on uniform paths, widths are drawn from the marginals of a Gibbs distribution over networks on the
budget; its temperature falls as training goes on. Deviations, beyond those of `ows`:

* Several budget levels are served by one supernet: each path draws its level first.
* The multiplier and the marginals are renewed every `resolve_every` batches, the paper does it in every one.
* The temperature's knots are placed by the fraction of the training, so that any number of epochs narrows as far.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch

from sartor.core.contracts import Lab, Problem, Strategy
from sartor.core.errors import ConfigError
from sartor.core.files import atomically
from sartor.core.records import Arch, Proposal
from sartor.core.tables import Tables
from sartor.solvers.budgets import Budget, Decoder, levels
from sartor.supernet.slimmable import Probabilities, Schedule, Slimmable, uniform
from sartor.supernet.statistics import Estimator

__all__ = ["Aows"]

KNOTS = ((0.0, 1.0), (0.25, 1.0), (0.3, 0.01), (0.5, 0.001), (1.0, 0.0005))
"""Fraction of the training -> temperature, log-linear in between (the paper's epochs 0, 5, 6, 10, 20 of 20)."""


class Aows(Strategy):
    """Adaptive optimal width search.

    Args:
        problem: A task, a `Shareable` space, and limits whose cost models offer `Terms`.
        seed: Of everything random.
        epochs: Of supernet training; one is one step.
        warmup: Fraction of the epochs on uniform paths.
        resolve_every: Batches between two renewals of the sampling probabilities.
        lr: Learning rate per 256 images of a batch (the paper's 0.1 suits trainings of a hundred thousand steps).
        schedule: `cosine` or `constant`.
        weight_decay: Of SGD.
        paths: Random paths per batch, each for an equal part of the images; 0 gives every image its own.
        statistics: `least_squares` or `mean`: how the loss of a width is estimated.
        half_life: Fraction of the training after which an image counts half in the statistics.
        decoder: `exact` or `lagrangian`.
        device: `cpu` or `cuda`.
    """

    saved = ("training", "history")
    smoke = {"epochs": 4, "resolve_every": 2}
    evaluator = "inherited"
    shares_weights = True

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        epochs: int = 20,
        warmup: float = 0.25,
        resolve_every: int = 8,
        lr: float = 0.4,
        schedule: Schedule = "cosine",
        weight_decay: float = 1e-5,
        paths: int = 4,
        statistics: Estimator = "least_squares",
        half_life: float = 0.2,
        decoder: Decoder = "exact",
        device: str = "cpu",
    ) -> None:
        if not 0 < warmup <= 1 or resolve_every < 1:
            raise ConfigError(
                f"warmup is {warmup} and resolve_every is {resolve_every}; they must be in (0, 1] and at least 1"
            )
        self.problem, self.estimator, self.decoder = problem, statistics, decoder
        self.warm, self.resolve_every = max(1, round(warmup * epochs)), resolve_every
        self.levels = levels(problem)
        self.budgets = [Budget.of(problem, limits, self) for limits in self.levels]
        for budget in self.budgets:  # a budget that nothing meets shows before training
            budget.best(Tables.zeros(problem.space.choices), decoder)
        self.training = Slimmable(
            problem,
            seed,
            by=self,
            epochs=epochs,
            lr=lr,
            schedule=schedule,
            weight_decay=weight_decay,
            half_life=half_life,
            paths=paths,
            device=device,
        )
        self.history: list[dict[str, Any]] = []
        """Per epoch, the probabilities that its last batches were drawn with (mean over the levels)."""
        self._current: Probabilities = uniform(problem.space.choices)

    def step(self, lab: Lab) -> bool:
        """One epoch; at the end, evaluate the solution of every budget level."""
        if not self.training.finished:
            self.training.epoch(lab, self._probabilities)
            self._record(lab)
            return True
        self.training.save(lab, self.estimator)
        lab.evaluate([Proposal(a) for a in dict.fromkeys(map(self.solve, self.levels))])
        return False

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The arch with the least predicted loss under `limits`, metric -> upper bound.

        Predictions are best near the budgets that the search narrowed to.

        Raises:
            BudgetError: No arch meets them.
            StateError: Nothing was trained yet.
        """
        loss = self.training.statistics.losses(self.estimator)
        return self.problem.space.canonical(Budget.of(self.problem, limits, self).best(loss, self.decoder))

    def _probabilities(self, batch: int) -> Probabilities:
        """What batch number `batch` of the epoch is drawn from; solved afresh at the start of every epoch."""
        if self.training.done < self.warm:
            return self._current
        if batch % self.resolve_every == 0:
            progress = (self.training.done + batch / max(1, self.training.batches)) / self.training.epochs
            loss = self.training.statistics.tables(self.estimator)
            rows = [budget.probabilities(loss, temperature(progress)) for budget in self.budgets]
            self._current = [torch.stack(options) for options in zip(*rows, strict=True)]
        return self._current

    def _record(self, lab: Lab) -> None:
        """Rewrite the whole `narrowing.jsonl`, so that a killed epoch leaves no second line."""
        rows = [p.mean(0).tolist() for p in self._current]
        self.history = [*self.history, {"epoch": self.training.done, "probabilities": rows}]
        lines = "".join(json.dumps(h) + "\n" for h in self.history)
        atomically(lab.artifact("narrowing.jsonl"), lambda part: part.write_text(lines))


def temperature(progress: float) -> float:
    """The Gibbs temperature after a fraction of the training, in units of loss per choice."""
    for (start, hot), (end, cold) in pairwise(KNOTS):
        if progress <= end:
            return math.exp(math.log(hot) + (math.log(cold) - math.log(hot)) * (progress - start) / (end - start))
    return KNOTS[-1][1]

"""The same task by minus its metrics, which are then to be made small: nothing else may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy

from sartor.core.contracts import Evaluator, Problem, Task
from sartor.core.metrics import SHARE, Metric
from sartor.core.records import Objective
from sartor.data.quality import mean_of
from sartor.tasks.digits import digits

OPPOSITE = {"max": "min", "min": "max"}


class Minus:
    """Minus another metric."""

    def __init__(self, make: Any) -> None:
        self.inner = make()

    def to(self, device: Any) -> Minus:
        self.inner.to(device)
        return self

    def update(self, output: Any, target: Any) -> None:
        self.inner.update(output, target)

    def compute(self) -> Any:
        return -self.inner.compute()

    def __getattr__(self, name: str) -> Any:
        if name == "values":
            return -self.inner.values
        if name == "resampled":
            found = self.inner.resampled
            return lambda times: -found(times)
        raise AttributeError(name)


class Opposite(Evaluator):
    """Minus the first metric of another evaluator, early values included."""

    def __init__(self, inner: Evaluator, metric: str) -> None:
        self.inner, self.metric = inner, metric

    def __call__(self, proposal: Any, seed: int) -> Mapping[str, float]:
        found = self.inner(proposal, seed)
        return {k: -v if k == self.metric or k.startswith(f"{self.metric}_") else v for k, v in found.items()}

    def epochs(self, fidelity: float) -> float:
        return self.inner.epochs(fidelity)


def negated(task: Task) -> Task:
    """The task by minus its metrics; there is no Wilson's interval of minus a proportion."""
    return replace(task, metrics=tuple(_minus(m) for m in task.metrics))


def opposite(problem: Problem) -> Problem:
    """The problem by minus its objectives and metrics."""
    objectives = tuple(Objective(o.metric, OPPOSITE[o.goal]) for o in problem.objectives)
    return replace(problem, objectives=objectives, task=None if problem.task is None else negated(problem.task))


def _minus(metric: Metric) -> Metric:
    interval = "none" if metric.interval == "proportion" else metric.interval
    return Metric(metric.name, OPPOSITE[metric.goal], metric.unit, interval, partial(Minus, metric.make))


def loud(*, size: int = 8, batch: int = 512) -> Task:
    """Digits, by the evidence for the right class in decibels, of which more is better."""
    return replace(digits(size=size, batch=batch, augment=""), metrics=(mean_of(_decibels, "evidence", "max", "dB"),))


def quiet(*, size: int = 8, batch: int = 512) -> Task:
    """The same by minus the evidence, of which less is better."""
    return negated(loud(size=size, batch=batch))


def sure(*, size: int = 8, batch: int = 512) -> Task:
    """Digits, by the mean probability of the right class, a share."""
    task = digits(size=size, batch=batch, augment="")
    return replace(task, metrics=(mean_of(_probability, "confidence", "max", SHARE),))


def unsure(*, size: int = 8, batch: int = 512) -> Task:
    """The same by minus the probability."""
    return negated(sure(size=size, batch=batch))


def _decibels(logits: Tensor, target: Tensor) -> Tensor:
    return -10 / float(np.log(10)) * cross_entropy(logits, target, reduction="none")


def _probability(logits: Tensor, target: Tensor) -> Tensor:
    return logits.softmax(1).gather(1, target[:, None])[:, 0]

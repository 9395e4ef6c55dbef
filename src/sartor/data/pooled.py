"""Metrics that are a function of sums over examples: root mean squared error, R2, intersection over union.

They are no means of values of examples, yet have an honest interval: the sums are drawn again with the examples.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from sartor.core.metrics import SHARE, Goal, Metric
from sartor.core.trees import Tree
from sartor.data.losses import per_example
from sartor.data.quality import PerExample

Parts: TypeAlias = Callable[[Tree, Tree], Tensor]
"""`(output, target) -> (batch, k)`: what is summed over examples."""

Pooling: TypeAlias = Callable[[Tensor], Tensor]
"""The mean of the parts over examples, `(k,)`, to a scalar."""


def pooled(parts: Parts, pooling: Pooling, name: str, goal: Goal, unit: str = "") -> Metric:
    """A metric from what is summed over examples; its interval is a bootstrap over them."""
    return Metric(name, goal, unit, "per_example", partial(Pooled, parts, pooling))


class Pooled(PerExample):
    """Keeps the parts of every example, `(n, k)`.

    Args:
        parts: See `Parts`.
        pooling: See `Pooling`.
    """

    def __init__(self, parts: Parts, pooling: Pooling) -> None:
        super().__init__(parts)
        self.pooling = pooling

    def compute(self) -> Tensor:
        return self.pooling(self.values.mean(0))

    @property
    def values(self) -> Tensor:
        """The parts of every example, `(n, k)`, float64."""
        if isinstance(self.seen, list) and len(self.seen) > 1:
            self.seen = [torch.cat(self.seen)]  # once: the bootstrap asks again and again
        return self.seen[0] if isinstance(self.seen, list) else self.seen

    def resampled(self, times: Tensor) -> float:
        """The metric if example `i` were in the data set `times[i]` times; `times` is `(n,)`."""
        weights = times.to(self.values)
        return float(self.pooling(weights @ self.values / weights.sum()))


def rmse(unit: str = "", scale: float | Tensor = 1.0) -> Metric:
    """Root of the mean squared error of all values, to be minimised.

    Args:
        unit: Of the values.
        scale: What outputs and targets are multiplied by to have that unit; one number, or one per column.
    """
    return pooled(partial(_squares, scale=scale), _root, "rmse", "min", unit)


def r2() -> Metric:
    """Share of the target's variance that is explained: 1 - SSE / SST, the mean over columns, `(batch, columns)`."""
    return pooled(_explained_parts, _explained, "r2", "max")


def worst_overlap(classes: int, ignore: int = -100) -> Metric:
    """Intersection over union of the class that has the least, over the whole split: see `sartor.data.overlap`.

    Classes that neither occur nor are predicted do not count.

    Args:
        classes: Their number.
        ignore: A label whose positions do not count.
    """
    return pooled(partial(confusion, classes=classes, ignore=ignore), _least_overlap, "iou_min", "max", SHARE)


def balanced_accuracy(classes: int) -> Metric:
    """The mean over classes of the share that is recognised ("average accuracy" in remote sensing)."""
    return pooled(partial(confusion, classes=classes), _mean_recall, "balanced_accuracy", "max", SHARE)


def confusion(logits: Tensor, target: Tensor, *, classes: int, ignore: int = -100) -> Tensor:
    """Right, predicted and true positions of every class in every example, `(batch, 3 * classes)`.

    Args:
        logits: `(batch, classes, ...)`.
        target: `(batch, ...)`.
        classes: Their number.
        ignore: A label whose positions do not count.
    """
    batch = len(target)
    guess, truth = logits.argmax(1).reshape(batch, -1), target.reshape(batch, -1)
    counted = truth != ignore
    # class number `classes` takes what does not count
    guess, truth = guess.where(counted, classes), truth.where(counted, classes)
    right = truth.where(guess == truth, classes)
    return torch.cat([_counts(part, classes) for part in (right, guess, truth)], 1)


def _counts(labels: Tensor, classes: int) -> Tensor:
    """Positions of every class, `(batch, positions) -> (batch, classes)`."""
    found = torch.zeros(len(labels), classes + 1, dtype=torch.float64, device=labels.device)
    return found.scatter_add_(1, labels, torch.ones_like(labels, dtype=torch.float64))[:, :classes]


def _least_overlap(sums: Tensor) -> Tensor:
    right, guessed, true = sums.chunk(3)
    either = guessed + true - right
    return (right[either > 0] / either[either > 0]).amin() if bool((either > 0).any()) else either.sum() / 0


def _mean_recall(sums: Tensor) -> Tensor:
    right, _, true = sums.chunk(3)
    return (right[true > 0] / true[true > 0]).mean()


def _squares(output: Tensor, target: Tensor, scale: float | Tensor) -> Tensor:
    factor = scale.to(output.device) if isinstance(scale, Tensor) else scale
    return per_example(((output.double() - target.double()) * factor).square())[:, None]


def _root(sums: Tensor) -> Tensor:
    return sums[0].sqrt()


def _explained_parts(output: Tensor, target: Tensor) -> Tensor:
    wanted = target.double()
    found = torch.stack([(output.double().reshape(wanted.shape) - wanted).square(), wanted, wanted.square()], 1)
    # of what has positions, all are one column
    return (found if target.dim() == 2 else found.flatten(2).mean(2)).flatten(1)


def _explained(sums: Tensor) -> Tensor:
    missed, mean, square = sums.chunk(3)
    return (1 - missed / (square - mean.square())).mean()

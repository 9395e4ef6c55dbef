"""Metrics of tasks: accuracy, means over examples, and whatever torchmetrics offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric as TorchMetric
from torchmetrics.classification import MulticlassAccuracy

from sartor.core.errors import ConfigError
from sartor.core.metrics import SHARE, Goal, Interval, Metric
from sartor.core.trees import Tree


def accuracy(classes: int) -> tuple[Metric, ...]:
    """The metrics of classification: the share of right answers."""
    make = partial(MulticlassAccuracy, num_classes=classes, average="micro", validate_args=False)
    return (Metric("accuracy", "max", SHARE, "proportion", make),)


def mean_of(function: Callable[[Tree, Tree], Tensor], name: str, goal: Goal, unit: str = "") -> Metric:
    """A metric that is the mean over examples of `function`, `(output, target) -> (batch,)`; NaNs do not count."""
    return Metric(name, goal, unit, "per_example", partial(PerExample, function))


class PerExample(TorchMetric):
    """The mean of one value per example; keeps them all, for intervals.

    Args:
        function: `(output, target) -> (batch,)`; NaN where an example has nothing to judge.
    """

    full_state_update = False

    def __init__(self, function: Callable[[Tree, Tree], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.seen: list[Tensor]
        self.add_state("seen", default=[], dist_reduce_fx="cat")

    def update(self, output: Tree, target: Tree) -> None:
        self.seen.append(self.function(output, target).detach().double())

    def compute(self) -> Tensor:
        return self.values.nanmean()

    @property
    def values(self) -> Tensor:
        """What was seen, `(n,)`, float64."""
        return torch.cat(list(self.seen)) if isinstance(self.seen, list) else self.seen


def of(given: Mapping[str, Callable[[], Any] | Metric], target: Tree = None) -> tuple[Metric, ...]:
    """Metrics from constructors of torchmetrics' metrics, or as they are.

    What is better comes from the metric's `higher_is_better`. Metrics of `torchmetrics.classification` between 0 and 1
    of which more is better are shown in per cent; an accuracy over examples has Wilson's interval.

    Args:
        given: Name -> constructor, or a `sartor.core.metrics.Metric`.
        target: A batch's, to tell accuracies over examples from those over pixels.

    Raises:
        ConfigError: There is no metric, or one cannot be made or does not say whether higher is better.
    """
    if not given:
        raise ConfigError('a task needs at least one metric, as in metrics={"psnr": PeakSignalNoiseRatio}')
    return tuple(_metric(name, make, target) for name, make in given.items())


def _metric(name: str, make: Callable[[], Any] | Metric, target: Tree) -> Metric:
    if isinstance(make, Metric):
        return Metric(name, make.goal, make.unit, make.interval, make.make)
    try:
        made = make()
    except TypeError as error:
        raise ConfigError(
            f"metric {name!r} cannot be made without arguments ({error}); give them, as in "
            "functools.partial(PeakSignalNoiseRatio, data_range=1.0)"
        ) from error
    higher = getattr(made, "higher_is_better", None)
    if higher is None:
        raise ConfigError(
            f"metric {name!r} ({type(made).__name__}) does not say whether higher is better; give "
            f"sartor.Metric({name!r}, 'max' or 'min', make=...) in its place"
        )
    known = bool(higher) and type(made).__module__.startswith("torchmetrics.classification")
    share = known and getattr(made, "plot_lower_bound", None) == 0 and getattr(made, "plot_upper_bound", None) == 1
    return Metric(name, "max" if higher else "min", SHARE if share else "", _interval(made, target), make)


def _interval(made: Any, target: Tree) -> Interval:
    flat = isinstance(target, Tensor) and target.dim() == 1
    plain = getattr(made, "average", "micro") == "micro" and getattr(made, "top_k", 1) == 1
    return "proportion" if flat and plain and type(made).__name__.endswith("Accuracy") else "none"

"""Your own DataLoaders as a task: any inputs, any outputs, any loss, any metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from sartor.core import trees
from sartor.core.contracts import Batch, Task
from sartor.core.errors import ConfigError, DataError
from sartor.core.metrics import Metric
from sartor.core.trees import Tree
from sartor.data.batches import Seeded
from sartor.data.losses import UNCOUNTED, apart, cross_entropy, imitation
from sartor.data.quality import accuracy, of

__all__ = ["loaders"]


def loaders(
    *,
    train: Iterable[Batch] | None = None,
    valid: Iterable[Batch] | None = None,
    test: Iterable[Batch] | None = None,
    classes: int | None = None,
    loss: Callable[[Tree, Tree], Tensor] | None = None,
    distance: Callable[[Tree, Tree], Tensor] | None = None,
    metrics: Mapping[str, Callable[[], Any] | Metric] | None = None,
    logits: bool | None = None,
    name: str = "loaders",
    fingerprint: str = "",
) -> Task:
    """Wrap three DataLoaders, or any iterables that can be iterated again and again, of `(inputs, target)` batches.

    Inputs are a tensor, or several in a tuple or list (the network's arguments, in order) or in a dict (by name); a
    target is a tensor, or anything made of tensors.

    torch's global generator is seeded while a loader works and put back when it has handed a batch out; generators of
    the training loader are seeded too. So order and augmentation follow the run's seed, unless the data set draws from
    Python's or NumPy's global generators, which are left alone. A training loader should shuffle and drop a last batch
    of one example, which batch normalisation cannot take.

    Args:
        train: Shuffled and augmented.
        valid: In fixed order; what a search may look at.
        test: In fixed order; what only the final report may touch.
        classes: Number of classes, for a classification; None takes the largest label of the validation split plus one,
            if neither `loss` nor `metrics` is given.
        loss: `(output, target) -> (batch,)` losses; cross-entropy by default.
        distance: `(output, teacher's output) -> (batch,)`, for distillation; by default the cross-entropy between
            softmaxes for logits, else the mean squared difference.
        metrics: Name -> constructor of a torchmetrics metric (its `higher_is_better` says what is better), or a
            `sartor.Metric`; the first one decides. Accuracy by default.
        logits: Whether the output is one tensor of logits, `(batch, classes, ...)`; None: if no loss, or `classes`, is
            given.
        name: For messages.
        fingerprint: Anything that identifies the data; goes into the report and guards checkpoints.

    Raises:
        ConfigError: A metric does not say what is better, or a loss is given without a metric.
        DataError: A loader is missing, or the validation loader gives no `(inputs, target)` batches.
    """
    if train is None or valid is None or test is None:
        raise DataError("the task loaders needs train, valid and test; from a config, name a task: `sartor list tasks`")
    inputs, target = _first(valid)
    plain = (loss is None or classes is not None) if logits is None else logits
    if loss is not None and metrics is None and classes is None:
        raise ConfigError(
            f"the task {name} has a loss of its own and no metric; say what is good, as in "
            'metrics={"psnr": PeakSignalNoiseRatio}, or classes for accuracy'
        )
    if metrics is None and classes is None:
        classes = _classes(valid)
    return Task(
        train=lambda generator: _seeded(train, generator),
        valid=lambda: _seeded(valid),
        test=lambda: _seeded(test),
        loss=loss or cross_entropy,
        distance=distance or (imitation if plain else apart),
        metrics=accuracy(classes or 0) if metrics is None else of(metrics, target),
        example=trees.mapped(lambda t: t[:1].clone(), inputs),
        name=name,
        logits=plain,
        classes=classes,
        ignore=UNCOUNTED if loss is None else None,
        fingerprint=fingerprint,
        describe={"source": "own loaders"},
    )


def _classes(valid: Iterable[Batch]) -> int:
    """The largest label plus one."""
    most = -1
    for _, target in _seeded(valid):
        if not isinstance(target, Tensor) or target.is_floating_point() or target.dim() != 1:
            raise DataError(
                f"a classification needs whole-number labels (batch,), got {trees.shapes(target)}; for another "
                "task give loss and metrics"
            )
        most = max(most, int(target.max()))
    return most + 1


def _first(batches: Iterable[Batch]) -> Batch:
    for batch in _seeded(batches):
        return batch
    raise DataError("the validation loader gives no batches; give it some data")


def _checked(batch: Any) -> Batch:
    """A batch as the contract has it; DataLoader collates tuples into lists.

    Raises:
        DataError: It is no pair of inputs and target, or the inputs are no tensors.
    """
    match batch:
        case (Tensor() as inputs, target) if len(inputs):
            return inputs, target
        case ((tuple() | list()) as inputs, target) if inputs and all(isinstance(t, Tensor) for t in inputs):
            return tuple(inputs), target
        case (dict() as inputs, target) if inputs and all(isinstance(t, Tensor) for t in inputs.values()):
            return inputs, target
    given = f"a pair of {' and '.join(type(p).__name__ for p in batch)}" if _is_pair(batch) else type(batch).__name__
    raise DataError(
        "a loader must give (inputs, target) pairs, where inputs are a tensor, or a tuple or dict of tensors; "
        f"got {given}"
    )


def _is_pair(batch: Any) -> bool:
    return isinstance(batch, tuple | list) and len(batch) == 2


def _seeded(batches: Iterable[Batch], generator: torch.Generator | None = None) -> Seeded:
    return Seeded(batches, _checked, generator)

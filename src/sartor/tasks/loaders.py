"""Your own DataLoaders as a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from sartor.core.contracts import Batch, Task
from sartor.core.errors import DataError
from sartor.core.rng import global_seed
from sartor.data import accuracy, cross_entropy, draw

__all__ = ["loaders"]


def loaders(
    *,
    train: Iterable[Batch] | None = None,
    valid: Iterable[Batch] | None = None,
    test: Iterable[Batch] | None = None,
    classes: int | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    metrics: Mapping[str, Callable[[], Any]] | None = None,
    fingerprint: str = "",
) -> Task:
    """Wrap three DataLoaders, or any iterables that can be iterated again and again, of `(x, y)` batches.

    torch's global generator is seeded while a loader works and put back when it has handed a batch out; generators of
    the training loader are seeded too. So order and augmentation follow the run's seed, unless the data set draws from
    Python's or NumPy's global generators, which are left alone. A training loader should shuffle and drop a last batch
    of one example, which batch normalisation cannot take.

    Args:
        train: Shuffled and augmented.
        valid: In fixed order; what a search may look at.
        test: In fixed order; what only the final report may touch.
        classes: Number of classes; None takes the largest label of the validation split plus one, if `metrics` are
            not given.
        loss: `(output, y) -> (batch,)` losses; cross-entropy by default.
        metrics: Name -> constructor of a torchmetrics metric; the first is the one to maximise. Accuracy by default.
        fingerprint: Anything that identifies the data; goes into the report and guards checkpoints.

    Raises:
        DataError: A loader is missing, or the validation loader gives no `(x, y)` batches.
    """
    if train is None or valid is None or test is None:
        raise DataError("the task loaders needs train, valid and test; from a config, use arrays or image_folder")
    example = _first(valid)
    if metrics is None:
        if classes is None:
            classes = max(int(y.max()) for _, y in _Seeded(valid)) + 1
        metrics = accuracy(classes)
    return Task(
        train=lambda generator: _Seeded(train, generator),
        valid=lambda: _Seeded(valid),
        test=lambda: _Seeded(test),
        loss=loss,
        metrics=metrics,
        example=example,
        classes=classes,
        fingerprint=fingerprint,
        describe={"source": "own loaders"},
    )


def _first(batches: Iterable[Batch]) -> Tensor:
    """One input, `(1, ...)`."""
    for batch in _Seeded(batches):
        match batch:
            case (Tensor() as x, Tensor()) if len(x):
                return x[:1].clone()
        raise DataError(f"a loader must give (x, y) pairs of tensors, got {type(batch).__name__}")
    raise DataError("the validation loader gives no batches; give it some data")


class _Seeded:
    """A loader whose draws from torch's global generator come from ours, one seed per batch."""

    def __init__(self, batches: Iterable[Batch], generator: torch.Generator | None = None) -> None:
        self.batches = batches
        self.generator = generator

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type] # a TypeError is the answer for those without a length

    def __iter__(self) -> Iterator[Batch]:
        generator = self.generator or torch.Generator()
        if self.generator is not None:
            self._seed_own(generator)
        with global_seed(draw(generator)):
            iterator = iter(self.batches)
        while True:
            with global_seed(draw(generator)):
                batch = next(iterator, None)
            if batch is None:
                return
            yield batch

    def _seed_own(self, generator: torch.Generator) -> None:
        for owner in (self.batches, getattr(self.batches, "sampler", None)):
            own = getattr(owner, "generator", None)
            if isinstance(own, torch.Generator):
                own.manual_seed(draw(generator))

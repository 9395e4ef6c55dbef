"""A task whose training epochs have exactly so many batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch

from sartor.core.contracts import Batch, Task


def of_steps(task: Task, steps: int) -> Task:
    """The task with `steps` training batches per epoch, from a part of an epoch or from several."""
    train = task.train
    return replace(task, train=lambda generator: _Steps(train, steps, generator))


@dataclass(frozen=True)
class _Steps:
    """Exactly `steps` training batches, from as many epochs as that takes."""

    train: Callable[[torch.Generator], Iterable[Batch]]
    steps: int
    generator: torch.Generator

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        left, before = self.steps, 0
        while left not in (0, before):  # an epoch without batches ends it
            before = left
            for batch in islice(self.train(self.generator), left):
                left -= 1
                yield batch

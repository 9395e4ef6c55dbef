"""Held-out examples for a search that learns from them: random batches, and how good an output is on one.

What is learned is a few preferences, not weights: the validation split, which a search may look at, serves for it. It
comes in a fixed order, which may be sorted by class, so batches are drawn from a pool in memory.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sartor.core import trees
from sartor.core.contracts import Batch, Problem, Task
from sartor.core.errors import CapabilityError, DataError, DivergedError
from sartor.core.rng import torch_rng
from sartor.core.state import pack, unpack
from sartor.core.trees import Inputs, Tree

POOL = 2**30
"""Bytes of examples that are kept; of a larger split a random part."""


class HeldOut:
    """Random batches of the validation split; the generator is all of the state.

    Args:
        problem: With a task.
        seed: Of the batches, and of which examples are kept.
        by: Who needs it, for messages.
        device: Where batches are wanted.
        pool: Bytes of inputs to keep in memory.
    """

    saved = ("rng",)

    def __init__(self, problem: Problem, seed: int, *, by: object, device: str = "cpu", pool: int = POOL) -> None:
        if problem.task is None:
            raise CapabilityError(f"{type(by).__name__} learns from held-out examples and needs a task")
        self.task, self.seed, self.device, self.pool = problem.task, seed, device, pool
        self.rng = torch_rng(seed, "held out")
        self._examples: Batch | None = None

    def batch(self, count: int) -> Batch:
        """`count` different examples at random, or all if there are fewer.

        Raises:
            DataError: The split is empty.
        """
        if self._examples is None:
            self._examples = _pool(self.task, self.pool, torch_rng(self.seed, "pool"))
        index = torch.randperm(trees.size(self._examples), generator=self.rng)[:count]
        found: Batch = trees.to(trees.rows(self._examples, index), self.device)
        return found

    def state_dict(self) -> dict[str, Any]:
        """The generator."""
        return pack(self, self.saved)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` took."""
        unpack(self, self.saved, state)


def _pool(task: Task, limit: int, generator: torch.Generator) -> Batch:
    """A uniform random part of the validation split that fits into `limit` bytes, in random order."""
    kept: tuple[Tensor, Inputs, Tree] | None = None
    for x, y in task.valid():
        keys = torch.rand(trees.size(x), generator=generator, dtype=torch.float64)
        kept = (keys, x, y) if kept is None else trees.joined([kept, (keys, x, y)])
        each = max(1, sum(t.element_size() * t[0].numel() for t in trees.leaves(x)))
        order = kept[0].argsort()[: max(1, limit // each)]  # the smallest keys of all so far
        if len(order) < len(kept[0]):
            kept = trees.rows(kept, order)
    if kept is None or not len(kept[0]):
        raise DataError("the validation split has no examples, and the search learns from them; hold out more data")
    return kept[1], kept[2]


def quality(problem: Problem, output: Tree, y: Tree) -> float:
    """How good `output` is for a batch, higher is better: the first objective's metric, if the task has it.

    Otherwise `exp(-loss)`, which for a cross-entropy is the mean (geometric) probability of the right answers.

    Raises:
        DivergedError: It is not finite.
    """
    objective, task = problem.objectives[0], problem.task
    assert task is not None
    known = task.named(objective.metric)
    if known is not None and known.make is not None:
        metric = known.make().to(trees.leaves(output)[0].device)
        metric.update(output, y)
        value = float(metric.compute()) * (1 if objective.goal == "max" else -1)
    else:
        value = math.exp(-float(task.loss(output, y).mean()))
    if not math.isfinite(value):
        raise DivergedError(f"the quality of a network with shared weights is {value}; lower lr")
    return value

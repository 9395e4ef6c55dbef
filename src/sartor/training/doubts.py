"""What speaks against trusting a network's score: it is what chance gives, or there are too few examples to tell.

A trained network that is no better than chance on the user's data has, as a rule, met other data than it was trained
on: classes in another order, pictures that are not normalised, another file of weights. All that a search does with it
would be for nothing, so it is said before.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain, islice

import torch
from torch import Tensor, nn

from sartor.core import trees
from sartor.core.contracts import Batch, Task
from sartor.core.errors import DataError, DivergedError
from sartor.core.rng import torch_rng
from sartor.training.evaluation import score

FEW = 50
"""Fewer validation examples say little of networks that differ by some per cent."""


def doubts(module: nn.Module, task: Task, own: float, *, device: str = "") -> list[str]:
    """One line for each; none as a rule.

    Args:
        module: A trained network.
        task: Its validation split is looked at.
        own: The network's metric there, of the one that decides.
        device: Where to run, `auto`, `cpu` or `cuda`; empty: where the network is.
    """
    count, examples = 0, 0
    for inputs, _ in task.valid():
        count, examples = count + 1, examples + trees.size(inputs)
    found = []
    at_chance = _at_chance(module, task, count, own, device) if examples > 1 else ""
    if at_chance:
        found.append(
            f"the network is no better than chance on the validation split: {at_chance}; check the weights, the order "
            "of the classes, and the mean and std that it was trained with"
        )
    if examples < FEW:
        found.append(
            f"the validation split has {examples} examples, and networks are chosen by it: small differences between "
            "them say nothing; hold out more data"
        )
    return found


def _at_chance(module: nn.Module, task: Task, count: int, own: float, device: str) -> str:
    """Its score beside that against the targets of other examples; empty if it is better, or nothing can be said."""
    metric = task.metric
    try:
        chance = score(module, _exchanged(task, count), task, device=device)[metric.name]
    except (DataError, DivergedError):  # all targets have sizes of their own, or exchanged ones mean nothing
        return ""
    ends = (chance.value if end is None else end for end in (chance.low, chance.high))
    if metric.sign * own > max(metric.sign * end for end in ends):
        return ""
    return f"{metric.name} {metric.text(own)}, and {metric.text(chance.value)} against the targets of others"


def _exchanged(task: Task, count: int) -> Iterator[Batch]:
    """The inputs of each batch with the targets, shuffled, of one half a split away: neighbours may be of one class."""
    far = chain(islice(task.valid(), count // 2, None), islice(task.valid(), count // 2))
    generator = torch_rng(0, "exchanged")
    for (inputs, own), (_, other) in zip(task.valid(), far, strict=True):
        size = min(trees.size(inputs), trees.size(other))
        order = torch.randperm(trees.size(other), generator=generator)[:size]
        drawn = trees.mapped(partial(_in_order, order), other)
        shapes = [[leaf.shape[1:] for leaf in trees.leaves(target)] for target in (own, drawn)]
        if shapes[0] == shapes[1]:
            yield trees.rows(inputs, slice(size)), drawn


def _in_order(order: Tensor, leaf: Tensor) -> Tensor:
    return leaf[order.to(leaf.device)]

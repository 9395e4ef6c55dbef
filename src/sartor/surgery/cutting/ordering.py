"""In which order channels go, found from a trained network and data; and of several orders the one that proves best.

Each order is tried on one network that is cut to about half of every width and fitted to the original layer by layer;
the best is the one whose outputs stay nearest to the original's on examples that the layers were not fitted to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from sartor.core import copies, trees
from sartor.core.contracts import Batch, Task
from sartor.core.records import Arch
from sartor.core.trees import Inputs, Tree
from sartor.surgery.analysis.accounting import Ladder
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.cutting.elimination import Elimination, eliminate
from sartor.surgery.cutting.importance import Scores, scores
from sartor.surgery.cutting.readers import projected, readers, sampled_labels
from sartor.surgery.cutting.slicing import Engine
from sartor.surgery.cutting.supernet import CutSupernet
from sartor.training.evaluation import mode

TRIED = ("obs", "taylor", "l2")
"""The orders that `auto` chooses from."""


@dataclass(frozen=True)
class Data:
    """What orders are found from, and judged by.

    Attributes:
        fitted: Examples that readers are gathered from and layers fitted to.
        judged: Other examples; the same ones where there are too few.
        batches: Inputs and targets, for gradients of the loss.
        task: With loss and distance.
    """

    fitted: Inputs
    judged: Inputs
    batches: Sequence[Batch]
    task: Task


@dataclass(frozen=True)
class Order:
    """An order of channels.

    Attributes:
        name: What it rests on.
        scores: `(units,)`: of a family the lowest go first.
        distances: Name -> distance from the original, for the orders that were tried.
    """

    name: str
    scores: Scores
    distances: Mapping[str, float]


def eliminated(skeleton: Skeleton, network: nn.Module, data: Data, seed: int = 0) -> Elimination:
    """Backward elimination on the network's own readers."""
    pull = sampled_labels if data.task.logits else projected
    with copies.undisturbed(network):
        return eliminate(skeleton.coupling, readers(Engine(skeleton, network), data.fitted, pull, seed=seed))


def by_elimination(skeleton: Skeleton, network: nn.Module, found: Elimination) -> Scores:
    """The scores of an elimination; of channels that no layer reads, norms of weights."""
    plain = scores(skeleton.coupling, network, "l2")
    return np.where(np.isnan(found.order), plain, found.order)


def best_order(
    skeleton: Skeleton, network: nn.Module, ladders: Sequence[Ladder], arch: Arch, data: Data, found: Elimination
) -> Order:
    """The best of `TRIED`.

    Args:
        skeleton: Of the network.
        network: Trained; its channels in any order.
        ladders: The choices.
        arch: What is tried, cut to about a half.
        data: What it is tried on.
        found: The elimination.
    """
    ways: dict[str, Callable[[], Scores]] = {
        "obs": lambda: by_elimination(skeleton, network, found),
        "taylor": lambda: scores(skeleton.coupling, network, "taylor", batches=data.batches, loss=data.task.loss),
        "l2": lambda: scores(skeleton.coupling, network, "l2"),
    }
    if not any(p.requires_grad for p in network.parameters()):
        del ways["taylor"]
    tried = {name: way() for name, way in ways.items()}
    distances = {name: _distance(skeleton, network, _sorted(ladders, s), arch, data) for name, s in tried.items()}
    best = min(distances, key=lambda name: (distances[name], TRIED.index(name)))
    return Order(best, tried[best], distances)


def _sorted(ladders: Sequence[Ladder], importance: Scores) -> list[Ladder]:
    """The same choices, keeping other channels."""
    return [
        replace(x, families=tuple(f[np.argsort(-importance[f], kind="stable")] for f in x.families)) for x in ladders
    ]


@torch.no_grad()
def _distance(skeleton: Skeleton, network: nn.Module, ladders: Sequence[Ladder], arch: Arch, data: Data) -> float:
    shared = CutSupernet(skeleton, network, ladders, plain=False)
    module = shared.graph(arch)
    with copies.undisturbed(network), mode(network, training=False), mode(module, training=False):
        shared.reconstruct(arch, module, data.fitted)
        wanted, given = trees.call(network, data.judged), trees.call(module, data.judged)
    found = float(data.task.distance(given, wanted).mean())
    return found if math.isfinite(found) else math.inf


def taken(batches: Iterable[Batch], fitted: int, judged: int, place: Callable[[Tree], Tree], task: Task) -> Data:
    """The first examples to fit to, the next ones to judge by.

    Args:
        batches: Of the training split.
        fitted: How many are fitted to, at most: half of what there is where that is less.
        judged: How many are judged by, at most.
        place: Brings tensors to where the network is.
        task: What the examples are of.
    """
    seen = [(place(inputs), place(target)) for inputs, target in batches]
    inputs: Inputs = trees.joined([x for x, _ in seen])
    count = trees.size(inputs)
    first = max(1, min(fitted, count // 2 if count > 1 else 1))
    rest = trees.rows(inputs, slice(first, first + judged)) if count > first else inputs
    return Data(trees.rows(inputs, slice(first)), rest, seen, task)

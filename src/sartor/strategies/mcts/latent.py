"""A tree whose branches are learned: at every node a linear model of the rewards splits good networks from bad ones.

Source: Wang et al., "Sample-efficient neural architecture search by learning action space" (LaNAS, arXiv:1906.06832),
from the paper alone. Deviations: the model sees options as they are, one number each, and is a ridge regression; the
tree is built anew before every batch; where random draws do not end in the chosen leaf, the one that comes furthest on
its path is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sartor.core.records import Arch

Floats: TypeAlias = NDArray[np.float64]

RIDGE = 1e-3
"""Share of the mean square of the features."""


@dataclass(eq=False)
class Node:
    """Networks of a region, and what splits it.

    Attributes:
        mean: Of their rewards, as a share of the range of all.
        count: How many there are.
        weights: Of the linear model, the last one of a constant; empty at a leaf.
        threshold: Predictions from here on are good ones.
        children: The bad ones, the good ones; empty at a leaf.
    """

    mean: float
    count: int
    weights: Floats = field(default_factory=lambda: np.zeros(0))
    threshold: float = 0.0
    children: tuple[Node, ...] = ()

    def side(self, row: Floats) -> int:
        """Which child a network is in."""
        return int(float(row @ self.weights) >= self.threshold)


class Partition:
    """Regions of networks, by the rewards of those known.

    Args:
        sizes: Options per choice.
        archs: The networks known.
        rewards: Theirs.
        depth: Splits from the whole space to a leaf, at most.
        least: Networks on either side of a split.
    """

    def __init__(
        self, sizes: Sequence[int], archs: Sequence[Arch], rewards: Sequence[float], *, depth: int, least: int = 5
    ) -> None:
        self._offsets = np.cumsum([0, *sizes])
        self.least = least
        values = np.array(rewards, dtype=np.float64)
        values = (values - values.min()) / (float(np.ptp(values)) or 1.0)
        self.root = self._grown(np.stack([self.row(a) for a in archs]), values, depth)

    def row(self, arch: Arch) -> Floats:
        """A network as the models see it: ones at its options and at the end."""
        found = np.zeros(int(self._offsets[-1]) + 1)
        found[self._offsets[:-1] + np.array(arch)] = found[-1] = 1.0
        return found

    def path(self, explore: float) -> list[tuple[Node, int]]:
        """From the whole space to the leaf with the best bounds: nodes, and the child taken at each."""
        node, found = self.root, list[tuple[Node, int]]()
        while node.children:
            log = math.log(node.count)
            bounds = [child.mean + explore * math.sqrt(log / child.count) for child in node.children]
            side = int(bounds[1] >= bounds[0])
            found.append((node, side))
            node = node.children[side]
        return found

    def reached(self, arch: Arch, path: Sequence[tuple[Node, int]]) -> int:
        """How many nodes of a path a network follows."""
        row = self.row(arch)
        return next((i for i, (node, side) in enumerate(path) if node.side(row) != side), len(path))

    def leaves(self) -> Iterator[Node]:
        """All of them."""
        nodes = [self.root]
        while nodes:
            node = nodes.pop()
            nodes += node.children
            if not node.children:
                yield node

    def _grown(self, rows: Floats, values: Floats, depth: int) -> Node:
        node = Node(float(values.mean()), len(values))
        if not depth or len(values) < 2 * self.least:
            return node
        square = rows.T @ rows
        square.flat[:: len(square) + 1] += RIDGE * len(rows)
        node.weights, node.threshold = np.asarray(np.linalg.solve(square, rows.T @ values), np.float64), node.mean
        good = rows @ node.weights >= node.threshold
        if min(good.sum(), (~good).sum()) >= self.least:
            node.children = tuple(self._grown(rows[part], values[part], depth - 1) for part in (~good, good))
        return node

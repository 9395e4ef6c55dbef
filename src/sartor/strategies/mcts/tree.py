"""A tree over the choices of a space in their order, searched by upper confidence bounds (UCT)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from sartor.core.records import Arch

Open = Callable[[Arch], Sequence[int]]
"""Which options may follow the first ones of an arch."""


class Node:
    """The first options of many networks.

    Attributes:
        open: Options below which there is still something to try.
        counts: Rewards per option.
        sums: Of these rewards.
    """

    __slots__ = ("children", "counts", "open", "sums")

    def __init__(self, options: Sequence[int], size: int) -> None:
        self.open = list(options)
        self.counts, self.sums = [0] * size, [0.0] * size
        self.children: dict[int, Node] = {}


class Tree:
    """Rewards of networks, by their first options; every network is tried once.

    Args:
        sizes: Options per choice.
        opened: Which options may follow the first ones: hard limits prune here.
        explore: Weight of the bound beside the mean, in units of the range of the rewards.
        equivalence: Rewards of an option in its branch that weigh as much as those it had in all branches; 0 looks at
            its branch alone.
    """

    def __init__(self, sizes: Sequence[int], opened: Open, explore: float, equivalence: float) -> None:
        self.sizes, self.opened, self.explore, self.equivalence = sizes, opened, explore, equivalence
        self.root = Node(opened(()), sizes[0])
        self.counts, self.sums = [[0] * k for k in sizes], [[0.0] * k for k in sizes]
        """Of every option in all branches (all moves as first)."""
        self._low, self._high = math.inf, -math.inf

    def descend(
        self, rng: np.random.Generator, fits: Callable[[Arch], bool] | None = None, tries: int = 1
    ) -> Arch | None:
        """The network at the end of the best path.

        Equal bounds are told apart by random numbers per option, the same for all tries: so the path does not depend on
        which of the paths that end in no network have been closed before.

        Args:
            rng: Of these numbers.
            fits: Which networks may be the end, beside those never learned; what does not fit is closed for good.
            tries: Ends that do not fit, before this gives up.

        Returns:
            None if nothing is open, or no try has come to an end that fits.
        """
        keys = [rng.random(k).tolist() for k in self.sizes]
        for _ in range(tries):
            if not self.root.open:
                return None
            path = self._walk(keys)
            if len(path) == len(self.sizes) and (fits is None or fits(path)):
                return path
            self._close(path)
        return None

    def _walk(self, keys: Sequence[Sequence[float]]) -> Arch:
        """Down to a network, or to where no option is open."""
        node: Node | None = self.root
        path: Arch = ()
        for depth in range(len(self.sizes)):
            options = self.opened(path) if node is None else node.open
            if not options:  # what looked open has no way on within the limits
                break
            option = self._best(node, depth, options, keys[depth])
            node = None if node is None else node.children.get(option)
            path = (*path, option)
        return path

    def learn(self, arch: Arch, reward: float) -> None:
        """Back the reward of a network up its path, and close that path."""
        self._low, self._high = min(self._low, reward), max(self._high, reward)
        node = self.root
        for depth, option in enumerate(arch):
            node.counts[option] += 1
            node.sums[option] += reward
            self.counts[depth][option] += 1
            self.sums[depth][option] += reward
            if depth + 1 < len(arch):
                node = self._child(node, arch[: depth + 1], option)
        self._close(arch)

    def _child(self, node: Node, prefix: Arch, option: int) -> Node:
        if option not in node.children:
            node.children[option] = Node(self.opened(prefix), self.sizes[len(prefix)])
        return node.children[option]

    def _close(self, prefix: Sequence[int]) -> None:
        """Nothing below these options is left to try."""
        path = [self.root]
        for depth, option in enumerate(prefix[:-1], 1):
            path.append(self._child(path[-1], tuple(prefix[:depth]), option))
        for node, option in zip(reversed(path), reversed(prefix), strict=True):
            if option in node.open:
                node.open.remove(option)
            if node.open:
                return

    def _best(self, node: Node | None, depth: int, options: Sequence[int], keys: Sequence[float]) -> int:
        """The open option with the largest bound."""
        if node is None and not self.equivalence:
            return max(options, key=keys.__getitem__)
        return max(options, key=lambda option: (self._bound(node, depth, option), keys[option]))

    def _bound(self, node: Node | None, depth: int, option: int) -> float:
        count, total = (0, 0.0) if node is None else (node.counts[option], node.sums[option])
        visits = 0 if node is None else sum(node.counts)
        mean = self._scaled(total, count) if count else 0.0
        if self.equivalence:
            seen = self.counts[depth][option]
            if not seen:
                return math.inf
            share = self.equivalence / (self.equivalence + count)
            mean += share * (self._scaled(self.sums[depth][option], seen) - mean)
            return mean + self.explore * math.sqrt(math.log(visits + 2) / (count + 1 + share * math.sqrt(seen)))
        return mean + self.explore * math.sqrt(math.log(visits) / count) if count else math.inf

    def _scaled(self, total: float, count: int) -> float:
        """A mean as a share of the range of all rewards."""
        return (total / count - self._low) / ((self._high - self._low) or 1.0)

"""Networks that are only imagined: a tree is searched with the rewards of a function that costs nothing to ask."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

import numpy as np

from sartor.core.contracts import Space
from sartor.core.records import Arch
from sartor.regions.openings import Openings
from sartor.regions.region import Region
from sartor.strategies.mcts.tree import Tree
from sartor.surrogates.values import Values


class Function:
    """Values of single networks: as `Values.at`, but quick for one at a time."""

    def __init__(self, values: Values) -> None:
        self._offsets = np.array(values.offsets[:-1])
        self._single, self._pairs = values.single, values.pairs
        self._above = np.triu_indices(len(self._offsets), 1)

    def __call__(self, arch: Arch) -> float:
        columns = self._offsets + arch
        a, b = self._above
        return float(self._single[columns].sum() + self._pairs[columns[a], columns[b]].sum())


class Planner:
    """Looks for the network inside the limits that a function rewards most.

    Args:
        region: The networks within the limits.
        openings: Which options can be completed within them.
        playouts: Paths through the tree.
        explore: Weight of the bounds beside the means.
        climb: Whether single options of the best network are exchanged in the end.
    """

    def __init__(self, region: Region, openings: Openings, *, playouts: int, explore: float, climb: bool) -> None:
        self.region, self.openings, self.space = region, openings, region.space
        self.playouts, self.explore, self.climb = playouts, explore, climb

    def __call__(self, values: Values, taken: Container[Arch], rng: np.random.Generator) -> Arch | None:
        """The best network found that is not `taken`; None if there is none."""
        function, best = Function(values), None
        tree = Tree(self.openings.sizes, self.openings, self.explore, 0.0)
        for _ in range(self.playouts):
            path = tree.descend(rng, tries=self.playouts)
            if path is None:
                break
            arch = self.space.canonical(path)
            value = function(arch)
            tree.learn(path, value)
            if (best is None or value > best[0]) and arch not in taken and arch in self.region:
                best = value, arch
        if best is None:
            return None
        return self._climbed(best[1], function, taken, rng) if self.climb else best[1]

    def _climbed(self, arch: Arch, function: Function, taken: Container[Arch], rng: np.random.Generator) -> Arch:
        value, moved = function(arch), True
        while moved:
            moved = False
            for i in rng.permutation(len(arch)).tolist():
                for other in _exchanged(self.space, arch, i):
                    if function(other) > value and other not in taken and other in self.region:
                        arch, value, moved = other, function(other), True
        return arch


def _exchanged(space: Space, arch: Sequence[int], i: int) -> Iterator[Arch]:
    for option in range(len(space.choices[i].options)):
        yield space.canonical((*arch[:i], option, *arch[i + 1 :]))

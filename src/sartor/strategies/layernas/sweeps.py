"""Sweeps over the layers of a space: the best network per bucket of cost, layer by layer, as LayerNAS has it.

Source: Fan et al., 2023, arXiv:2304.11517.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from sartor import archs
from sartor.core.records import Arch
from sartor.strategies.layernas.layers import Layers


class Sweeps:
    """Where each network with the first layers changed has its place.

    Args:
        layers: With the limits and the buckets.
        parents: How many networks of a layer are expanded at a time.
        children: How many options of the next layer are tried with each.
    """

    def __init__(self, layers: Layers, parents: int, children: int) -> None:
        self.layers, self.parents, self.children = layers, parents, children
        self.default = dearest(layers)
        self.layer = 0
        """The one whose options are tried next."""
        self.tables: list[dict[int, Arch]] = [{0: self.default}, *({} for _ in layers.sizes)]
        """Per number of layers changed: bucket -> the best network."""
        self.losses: list[dict[int, float]] = [{0: np.inf}, *({} for _ in layers.sizes)]
        """Of the networks in `tables`."""

    def ask(self, rng: np.random.Generator, seen: Mapping[Arch, float]) -> list[Arch]:
        """Networks not seen yet, all with options of one layer changed; none when no layer has any.

        Args:
            rng: Orders parents and options.
            seen: Network -> loss, infinite for failed ones. A child that is in it takes its place without a trial.
        """
        idle = 0
        while idle < len(self.layers.sizes):
            found, news = self._expand(rng, seen)
            if found:
                return found
            idle = 0 if news else idle + 1
            self.layer = (self.layer + 1) % len(self.layers.sizes)
        return []

    def tell(self, results: Sequence[tuple[Arch, float]]) -> None:
        """The losses of what was asked; goes on to the next layer."""
        for arch, loss in results:
            self._place(arch, loss)
        self.layer = (self.layer + 1) % len(self.layers.sizes)

    def _expand(self, rng: np.random.Generator, seen: Mapping[Arch, float]) -> tuple[list[Arch], bool]:
        """New children of a few parents, and whether old ones have found a place."""
        found, news, expanded = dict[Arch, Arch](), False, 0
        canonical = self.layers.space.canonical
        table = self.tables[self.layer]
        for bucket in rng.permutation(sorted(table)).tolist():
            fitting = self._fitting(table[bucket])
            old = [child for child in fitting if canonical(child) in seen]
            for child in old:
                news |= self._place(child, seen[canonical(child)])
            new = [child for child in fitting if child not in old and canonical(child) not in found]
            picks = islice(rng.permutation(len(new)).tolist(), self.children)
            found |= {canonical(new[i]): new[i] for i in picks}
            expanded += bool(new)
            if expanded == self.parents:
                break
        return list(found.values()), news

    def _fitting(self, parent: Arch) -> list[Arch]:
        """The children that can still end inside the limits."""
        at, options = self.layer, self.layers.sizes[self.layer]
        fits = self.layers.fits(np.array([(*parent[:at], k) for k in range(options)]))
        return [(*parent[:at], k, *parent[at + 1 :]) for k in range(options) if fits[k]]

    def _place(self, arch: Arch, loss: float) -> bool:
        """Whether the network is the best of its bucket so far."""
        done = self.layer + 1
        bucket = int(self.layers.bucket(np.array([arch[:done]]))[0])
        if loss >= self.losses[done].get(bucket, np.inf):
            return False
        self.tables[done][bucket], self.losses[done][bucket] = arch, loss
        return True

    def state_dict(self) -> dict[str, Any]:
        """Where it is."""
        return {"layer": self.layer, "tables": self.tables, "losses": self.losses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` took."""
        self.layer, self.losses = state["layer"], state["losses"]
        self.tables = [{b: tuple(a) for b, a in table.items()} for table in state["tables"]]


def dearest(layers: Layers) -> Arch:
    """The most expensive network, found one layer at a time; of equal options the last one."""
    found = archs.largest(layers.space)
    for _ in range(2):
        for i, k in enumerate(layers.sizes):
            options = [(*found[:i], o, *found[i + 1 :]) for o in reversed(range(k))]
            found = options[int(layers.place(np.array(options)).argmax())]
    return found

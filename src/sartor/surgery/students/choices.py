"""Architectures of compressed networks: layers and blocks kept or not, widths, further skips; and what each one is.

An arch has one option per choice, in this order:

* `keep:LAYER` and `block:BLOCK`, 0 or 1: whether it stays (`sartor.surgery.students.rewiring`);
* `width:LAYER`: units of a group of coupled channels;
* `skip:LAYER`: what is added to the layer's input, `none` first, then earlier values, nearest first.

Options without effect give the same network: what lies inside a skipped block, skips from or into what is gone, and
widths that others decide. `Students.canonical` names one arch of each kind: there, such widths are the least options
that hold as many channels as the network has.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import fx

from sartor.core.records import Arch, Choice
from sartor.surgery.cutting.slicing import Kept
from sartor.surgery.students.rewiring import Removal, Rewired, Ties, Wiring


class Plan(NamedTuple):
    """What an arch does to the graph; nodes are numbers (`Wiring.index`).

    Attributes:
        arch: Its canonical form.
        shortcuts: Removed node -> what it is instead.
        added: Node -> what is added to its input.
        gone: What is not computed: the inside of skipped blocks.
        kept: Which places stay (`Places`).
    """

    arch: Arch
    shortcuts: dict[int, int]
    added: dict[int, int]
    gone: frozenset[int]
    kept: NDArray[np.bool_]


class _Off(NamedTuple):
    """A removal, in numbers."""

    node: int
    source: int
    ties: Ties
    members: frozenset[int]


class Students:
    """The choices of a wiring, and what follows from options.

    Args:
        wiring: What can be rewired, and the ladders of widths.
        removals: Layers on offer.
        blocks: Blocks on offer.
        skips: Whether values can be added.
    """

    def __init__(self, wiring: Wiring, *, removals: bool = True, blocks: bool = True, skips: bool = True) -> None:
        self.wiring = wiring
        layers, whole = wiring.removals if removals else (), wiring.blocks if blocks else ()
        targets = wiring.targets if skips else ()
        self.layers, self.blocks = self._off(layers), self._off(whole)
        index = wiring.index
        self.targets = [(index[t.node], [(index[s], ties) for _, s, ties in t.sources]) for t in targets]
        self._places = [{index[s]: k for k, (_, s, _) in enumerate(t.sources, 1)} for t in targets]
        self.choices: tuple[Choice, ...] = (
            *(Choice(f"keep:{r.name}", (0, 1)) for r in layers),
            *(Choice(f"block:{r.name}", (0, 1)) for r in whole),
            *(Choice(f"width:{s.choice.name}", s.choice.options, ordered=True) for s in wiring.ladders),
            *(Choice(f"skip:{t.name}", ("none", *(name for name, _, _ in t.sources))) for t in targets),
        )
        n, m, w = len(layers), len(whole), len(wiring.ladders)
        self.at_blocks, self.at_widths, self.at_skips = n, n + m, n + m + w
        self.reference: Arch = tuple(
            0 if i >= self.at_skips else len(c.options) - 1 for i, c in enumerate(self.choices)
        )

    def canonical(self, arch: Arch) -> Arch:
        """The arch that stands for all that give the same network."""
        return self.plan(arch).arch

    def plan(self, arch: Arch) -> Plan:
        """What an arch does."""
        new, ties = list(arch), list[int]()
        off = [k for k in range(len(self.blocks)) if not arch[self.at_blocks + k]]
        gone = frozenset[int]().union(*(self.blocks[k].members for k in off))
        shortcuts: dict[int, int] = {}
        for i, layer in enumerate(self.layers):
            if layer.node in gone:
                new[i] = 1
            elif not arch[i]:
                shortcuts[layer.node] = layer.source
                ties += layer.ties
        removed = frozenset(shortcuts)
        shortcuts |= {self.blocks[k].node: self.blocks[k].source for k in off}
        added: dict[int, int] = {}
        for k, (node, sources) in enumerate(self.targets):
            option = arch[self.at_skips + k]
            if option:
                option = self._skip(k, option, shortcuts, gone) if node not in gone and node not in removed else 0
                new[self.at_skips + k] = option
            if option:
                added[node], further = sources[option - 1]
                ties += further
        kept = self._widths(new, ties, off)
        return Plan(tuple(new), shortcuts, added, gone, kept)

    def _skip(self, k: int, option: int, shortcuts: dict[int, int], gone: frozenset[int]) -> int:
        """The option that stands for the same value; 0 if there is none."""
        value = self.targets[k][1][option - 1][0]
        if value in gone:
            return 0
        while value in shortcuts:
            value = shortcuts[value]
        return self._places[k].get(value, option)

    def _widths(self, new: list[int], ties: list[int], off: list[int]) -> NDArray[np.bool_]:
        """Put widths without effect at what they are; which places stay."""
        for k in off:
            for c in self._inside[k]:
                new[self.at_widths + c] = len(self.wiring.ladders[c].kept) - 1
        places = self.wiring.places
        options = np.array([*new[self.at_widths : self.at_skips], 0])  # without widths, the first place has none
        kept: NDArray[np.bool_] = places.needs <= options[places.owner]
        deciders = places.joined(ties)
        if deciders is not None:
            none = ~np.logical_or.reduceat(kept[deciders], places.firsts)  # all of it follows what is cut
            kept[deciders[places.firsts[none]]] = True
            kept = kept[deciders]
            alone = np.logical_or.reduceat(deciders == np.arange(len(deciders)), places.starts)
            counts = np.add.reduceat(kept.astype(np.int64), places.starts)
            for c, own, count in zip(places.order, alone.tolist(), counts.tolist(), strict=True):
                if not own:
                    new[self.at_widths + c] = int(np.searchsorted(self._totals[c], count))
        return kept

    @cached_property
    def _totals(self) -> list[NDArray[np.int64]]:
        """Units under every option of every width."""
        return [ladder.kept.sum(1) for ladder in self.wiring.ladders]

    @cached_property
    def _inside(self) -> list[list[int]]:
        """Block -> the widths that live in it alone."""
        homes = [{self.wiring.index[n] for n in home} for home in self.wiring.places.homes]
        return [[c for c, home in enumerate(homes) if home <= block.members] for block in self.blocks]

    def _off(self, removals: Sequence[Removal]) -> list[_Off]:
        at = self.wiring.index
        return [_Off(at[r.node], at[r.source], r.ties, frozenset(at[m] for m in r.members)) for r in removals]

    def kept(self, plan: Plan) -> Kept:
        """Which units stay, `(units + 1,)`."""
        kept = np.ones(len(self.wiring.skeleton.units) + 1, dtype=bool)
        kept[self.wiring.places.units[1:]] = plan.kept[1:]
        return kept

    def cut(self, arch: Arch) -> Rewired:
        """How to build the network."""
        plan, nodes = self.plan(arch), self.wiring.skeleton.nodes
        return Rewired(
            self.wiring.skeleton,
            self.kept(plan),
            shortcuts={nodes[a]: nodes[b] for a, b in plan.shortcuts.items()},
            added={nodes[a]: nodes[b] for a, b in plan.added.items()},
            skipped=frozenset(nodes[i] for i in plan.gone | self._idle(plan)),
        )

    def _idle(self, plan: Plan) -> frozenset[int]:
        """What is made of weights alone and only removed layers read."""
        return frozenset(i for i, readers in self.readers.items() if readers <= plan.gone | plan.shortcuts.keys())

    @cached_property
    def readers(self) -> dict[int, frozenset[int]]:
        """Nodes that do not depend on the input, weights among them -> the nodes that do, and read them in the end."""
        index, dependent = self.wiring.index, self.wiring.dependent
        found: dict[fx.Node, frozenset[int]] = {}
        for node in reversed(self.wiring.skeleton.nodes):
            if node not in dependent and node.op != "output":
                parts = [frozenset([index[u]]) if u in dependent or u.op == "output" else found[u] for u in node.users]
                found[node] = frozenset[int]().union(*parts)
        return {index[node]: readers for node, readers in found.items()}

"""What of a traced network can be taken out, and where further sums can be put in.

A *removal* makes a node the identity: a convolution, linear layer, norm, activation or pooling whose output has the
shape of its input, or the sum that ends a residual block, which then is its shortcut. A *skip* adds the value of an
earlier node to the input of a later one. Both make two tensors stand for the same dimensions whose channels were chosen
apart. Such channels are *tied*, place by place: of those that meet, the one whose choice most layers share decides, and
the others stay or go with it. Whatever set of units is kept gives a network whose shapes fit
(`sartor.surgery.analysis.units`), so every combination of removals, skips and widths does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from sartor.surgery.analysis.accounting import Ladder
from sartor.surgery.analysis.skeleton import Block, Skeleton
from sartor.surgery.analysis.trace import BATCH, place
from sartor.surgery.analysis.tracker import Dims, flat, in_place, operator_name, tensors
from sartor.surgery.analysis.units import Dim, Labels
from sartor.surgery.cutting.slicing import Cut, Kept

Ties: TypeAlias = tuple[int, ...]
"""Numbers of pairs of places that must be kept alike (`Places.ties`)."""

Numbers: TypeAlias = NDArray[np.int64]

_ACTIVATIONS = (
    "relu relu6 gelu silu mish hardtanh hardswish hardsigmoid sigmoid tanh leaky_relu elu selu celu softplus prelu"
)
KINDS: Mapping[str, str] = MappingProxyType(
    {
        **{f"conv{t}{rank}d": "conv" for t in ("", "_transpose") for rank in "123"},
        "linear": "linear",
        "batch_norm": "batch_norm",
        **dict.fromkeys(("layer_norm", "group_norm", "instance_norm", "rms_norm"), "norm"),
        **dict.fromkeys(_ACTIVATIONS.split(), "activation"),
        "relu": "relu",
        **{f"{a}max_pool{rank}d": "max_pool" for a in ("", "adaptive_") for rank in "123"},
        **{f"{a}avg_pool{rank}d": "avg_pool" for a in ("", "adaptive_") for rank in "123"},
    }
)
"""Operator -> kind of layer: what can become the identity, and what can get a further term to its input."""
VIEWS = frozenset(
    [
        "view",
        "reshape",
        "_unsafe_view",
        "flatten",
        "unflatten",
        "slice",
        "select",
        "narrow",
        "transpose",
        "permute",
        "t",
        "movedim",
        "swapaxes",
        "expand",
        "unsqueeze",
        "squeeze",
        "chunk",
        "split",
        "split_with_sizes",
        "unbind",
        "getitem",
        "detach",
        "alias",
        "contiguous",
        "to",
        "as_strided",
        "unfold",
    ]
)
"""Operators whose result may share the memory of their input."""


class Removal(NamedTuple):
    """A node that can become its input.

    Attributes:
        name: For people.
        node: Which.
        source: What it is instead.
        ties: What is kept alike then.
        members: What is not computed then either: the inside of a block.
    """

    name: str
    node: fx.Node
    source: fx.Node
    ties: Ties
    members: frozenset[fx.Node] = frozenset()


class Target(NamedTuple):
    """A node to whose input an earlier value can be added.

    Attributes:
        sources: The values, nearest first, without those that are terms of its input already: name, node, and what
            adding it ties.
    """

    name: str
    node: fx.Node
    sources: tuple[tuple[str, fx.Node, Ties], ...]


def functional(graph: fx.Graph) -> None:
    """Make operators that work in place give new tensors, where nobody can tell the difference.

    A value that stays what it was can be taken for the output of a removed node, or added elsewhere.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if node.op != "call_function" or not in_place(node):
            continue
        given = node.args[0]
        fresh = given.op == "call_function" and operator_name(given) not in VIEWS
        alone = all(order[user] <= order[node] and operator_name(user) not in VIEWS for user in given.users)
        packet = getattr(torch.ops.aten, operator_name(node), None)
        overload = getattr(packet, str(getattr(node.target, "_overloadname", "")), None)
        if fresh and alone and overload is not None:
            node.target = overload


class Wiring:
    """All removals and skips of a network.

    Args:
        skeleton: Of the network, whose graph has gone through `functional`.
        network: The network, for names.
        ladders: The choices of widths.
        blocks: Residual blocks that can be skipped.
    """

    def __init__(
        self, skeleton: Skeleton, network: nn.Module, ladders: Sequence[Ladder], blocks: Sequence[Block] = ()
    ) -> None:
        self.skeleton, self.ladders, self._blocks = skeleton, tuple(ladders), tuple(blocks)
        self.index: dict[fx.Node, int] = {node: i for i, node in enumerate(skeleton.nodes)}
        self.dependent = _dependent(skeleton)
        self.names = _names(network, [n for n in skeleton.calls if n in self.dependent])
        self.places = Places(skeleton, ladders, self.dependent)

    @cached_property
    def layers(self) -> tuple[fx.Node, ...]:
        """Nodes that treat one tensor, and whose input nobody changes later."""
        return tuple(n for n in self.names if operator_name(n) in KINDS and self._single(n))

    @cached_property
    def removals(self) -> tuple[Removal, ...]:
        """Single layers that can be the identity, in order."""
        found = []
        for node in self.layers:
            source = tensors(node)[0]
            ties = self._ties(source, node)
            if ties is not None and source.op == "call_function" and _steady(node):
                found.append(Removal(self.names[node], node, source, ties))
        return tuple(found)

    @cached_property
    def blocks(self) -> tuple[Removal, ...]:
        """Residual blocks that can be their shortcuts, in order."""
        names = self._block_names()
        return tuple(
            Removal(name, b.end, b.shortcut, (), b.members) for name, b in zip(names, self._blocks, strict=True)
        )

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        """Layers to whose input something can be added, in order."""
        values = [n for n in self.names if isinstance(n.meta.get("val"), Tensor) and _steady(n)]
        values = [n for n in values if operator_name(n) not in VIEWS]
        found = []
        for node in self.layers:
            x = tensors(node)[0]
            sources, there = [], _terms(x)
            for value in reversed(values):
                ties = self._ties(value, x) if self.index[value] < self.index[node] and value not in there else None
                if ties is not None:
                    sources.append((self.names[value], value, ties))
            if sources:
                found.append(Target(self.names[node], node, tuple(sources)))
        return tuple(found)

    def _single(self, node: fx.Node) -> bool:
        first, *others = tensors(node)
        fits = isinstance(node.meta.get("val"), Tensor) and first in self.dependent and node.args[0] is first
        return fits and _steady(first) and not in_place(node) and not any(o in self.dependent for o in others)

    def _ties(self, one: fx.Node, other: fx.Node) -> Ties | None:
        a, b = one.meta["val"], other.meta["val"]
        if a.shape != b.shape or a.dtype != b.dtype:
            return None
        return self.places.tie(self.skeleton.tracker.dims(one), self.skeleton.tracker.dims(other), tuple(a.shape))

    def _block_names(self) -> list[str]:
        """The module that a block lives in, unless it shares that with others."""
        places = [place(b.end) for b in self._blocks]
        return [
            where if where and places.count(where) == 1 else self.names[b.end]
            for where, b in zip(places, self._blocks, strict=True)
        ]


class Rewired(Cut):
    """A cut with removals and skips.

    Args:
        kept: Which units stay.
        shortcuts: Removed node -> what it is instead.
        added: Node -> what is added to its input.
        skipped: What is not computed.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        kept: Kept,
        *,
        shortcuts: Mapping[fx.Node, fx.Node],
        added: Mapping[fx.Node, fx.Node],
        skipped: frozenset[fx.Node],
    ) -> None:
        super().__init__(skeleton, kept, BATCH)
        self.shortcuts, self.added, self.skipped = dict(shortcuts), dict(added), skipped


class Places:
    """The units that choices set, numbered anew: 0 stands for all that always stay.

    Units of a choice follow each other, those of the choices that most layers share first.

    Attributes:
        units: Number -> unit; the first does not matter.
        number: Unit -> number.
        owner: Number -> choice.
        needs: Number -> least option with which it stays.
        homes: Choice -> nodes whose tensors it cuts.
        order: Choices, as they are numbered.
        starts: The first number of each, in that order.
        firsts: The first number of every family: of these at least one unit stays.
        ties: Pairs of arrays of numbers.
    """

    def __init__(self, skeleton: Skeleton, ladders: Sequence[Ladder], dependent: frozenset[fx.Node]) -> None:
        self._skeleton = skeleton
        owner = np.full(len(skeleton.units) + 1, -1)
        for c, ladder in enumerate(ladders):
            for family in ladder.families:
                owner[family] = c
        self.homes = _homes(skeleton, owner, dependent, len(ladders))
        self.order = sorted(range(len(ladders)), key=lambda c: (-len(self.homes[c]), c))
        parts = [(c, f, family) for c in self.order for f, family in enumerate(ladders[c].families)]
        self.units = np.concatenate([[-1], *(family for _, _, family in parts)])
        self.owner = np.concatenate([[0], *(np.full(len(family), c) for c, _, family in parts)]).astype(np.int64)
        needs = [(ladders[c].kept[:, f, None] <= np.arange(len(family))).sum(0) for c, f, family in parts]
        self.needs = np.concatenate([[0], *needs]).astype(np.int64)
        sizes = [sum(len(family) for family in ladders[c].families) for c in self.order]
        self.starts = np.cumsum([1, *sizes])[:-1]
        self.firsts = np.cumsum([1, *(len(family) for _, _, family in parts)])[:-1]
        self.number = np.zeros(len(skeleton.units) + 1, dtype=np.int64)
        self.number[self.units[1:]] = np.arange(1, len(self.units))
        self.ties: list[tuple[Numbers, Numbers]] = []
        self._known: dict[tuple[bytes, bytes], Ties] = {}
        self._codes: dict[int, tuple[Labels, Numbers | None]] = {}

    def __call__(self, dim: Dim, full: int) -> Numbers | None:
        """The number of each index of a dimension, `(full,)`; None if one has several, or belongs to an example."""
        if dim is None:
            return np.zeros(full, dtype=np.int64)
        if id(dim) not in self._codes:
            self._codes[id(dim)] = dim, self._coded(dim)
        return self._codes[id(dim)][1]

    def _coded(self, dim: Labels) -> Numbers | None:
        roots = self._skeleton.roots(dim)
        if roots is None:
            return np.zeros(len(dim), dtype=np.int64)
        found: Numbers | None = self.number[roots[:, 0]]
        return None if roots.shape[1] > 1 or self._skeleton.period(dim) else found

    def tie(self, one: Dims, other: Dims, shape: Sequence[int]) -> Ties | None:
        """What to keep alike so that two tensors of this shape always agree; None if that cannot be said."""
        found: list[int] = []
        for a, b, full in zip(one, other, shape, strict=True):
            first, second = self(a, full), self(b, full)
            if first is None or second is None:
                if not self._same(a, b):
                    return None
                continue
            if not np.array_equal(first, second):
                found += self._pair(first, second)
        return tuple(dict.fromkeys(found))

    def _pair(self, first: Numbers, second: Numbers) -> Ties:
        key = first.tobytes(), second.tobytes()
        if key not in self._known:
            self._known[key] = self._known[key[::-1]] = (len(self.ties),)
            differ = first != second
            self.ties.append((first[differ], second[differ]))
        return self._known[key]

    def _same(self, a: Dim, b: Dim) -> bool:
        if a is None or b is None:
            return False
        one, two = self._skeleton.roots(a), self._skeleton.roots(b)
        return one is not None and two is not None and np.array_equal(one, two)

    def joined(self, ties: Sequence[int]) -> Numbers | None:
        """Number -> the number that decides for it; None if each decides for itself."""
        found: Numbers | None = None
        for a, b in (self.ties[t] for t in dict.fromkeys(ties)):
            found = np.arange(len(self.units)) if found is None else found
            while True:
                one, two = found[a], found[b]
                if (one == two).all():
                    break
                table = np.arange(len(found))
                np.minimum.at(table, np.maximum(one, two), np.minimum(one, two))
                found = table[found]
        return found


def _homes(skeleton: Skeleton, owner: Numbers, dependent: frozenset[fx.Node], count: int) -> list[set[fx.Node]]:
    found: list[set[fx.Node]] = [set() for _ in range(count)]
    for node in dependent:
        for labels in flat(skeleton.tracker.of.get(node, [])):
            roots = skeleton.roots(labels)
            for c in () if roots is None else np.unique(owner[roots]).tolist():
                if c >= 0:
                    found[c].add(node)
    return found


def _terms(node: fx.Node) -> set[fx.Node]:
    """The node, and if it is a sum, what it is the sum of: what leads into its readers already."""
    if node.op != "call_function" or operator_name(node) != "add":
        return {node}
    return {node}.union(*(_terms(given) for given in tensors(node)))


def _steady(node: fx.Node) -> bool:
    """Whether nobody changes the node's tensor in place."""
    return not any(in_place(user) for user in node.users)


def _dependent(skeleton: Skeleton) -> frozenset[fx.Node]:
    """What depends on the network's inputs."""
    entrances = set(skeleton.coupling.traced.inputs.values())
    found = {n for n in skeleton.nodes if n.op == "placeholder" and n.name in entrances}
    for node in skeleton.calls:
        if any(given in found for given in node.all_input_nodes):
            found.add(node)
    return frozenset(found)


def _names(network: nn.Module, nodes: Sequence[fx.Node]) -> dict[fx.Node, str]:
    """What a person calls each node: its module if that has no parts, else its module and operator; all differ."""
    modules, taken, found = dict(network.named_modules()), set[str](), {}
    for node in nodes:
        where = place(node)
        whole = where in modules and where and not any(modules[where].children())
        name = first = where if whole else f"{where}.{operator_name(node)}".lstrip(".")
        count = 1
        while name in taken:
            count += 1
            name = f"{first}[{count}]"
        taken.add(name)
        found[node] = name
    return found

"""The topology space of NATS-Bench: six operations of a cell, 15,625 networks with published accuracies.

Source: Dong et al., "NATS-Bench: benchmarking NAS algorithms for architecture topology and size" (TPAMI 2021); the
cells are those of Dong and Yang, "NAS-Bench-201" (ICLR 2020). MACs are the benchmark's FLOPs, which count the bias of
the classifier as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import pairwise, product
from typing import Literal, TypeAlias

import torch
from torch import Tensor, fx, nn

from sartor.core import trees
from sartor.core.abilities import Accounted
from sartor.core.contracts import Space, Supernet
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Axis, Choice, Layer, Operators
from sartor.core.tables import Tables
from sartor.core.trees import Inputs
from sartor.spaces import _nats as nats
from sartor.spaces._cells import PRESETS, operators
from sartor.spaces._graph import Cell
from sartor.spaces._operators import Catalogue, Catalogued
from sartor.supernet.mixed import Mixed, inherit_path

__all__ = ["NatsTopology"]

_OPERATIONS = (nats.NONE, nats.SKIP, nats.POOL, *nats.KERNELS)  # cheapest first
_WIDTHS = (16, 32, 64)
_RESIDUAL = ("nor_conv_3x3", nats.NONE, "nor_conv_3x3", nats.SKIP, nats.NONE, nats.SKIP)
"""A residual block of two convolutions."""

Merge: TypeAlias = Literal["published", "all", "none"]
_INPUT, _NOTHING = "0", "#"
"""Words for what nodes compute. Those of the benchmark: its count depends on the order that they sort in."""


class NatsTopology(Catalogued, Space, Accounted):
    """A 3x3 convolution, then three stages of equal cells with 16, 32 and 64 channels.

    A cell is a graph of an input and three nodes, each the sum of one operation on every node before it. The table of
    CIFAR-10 belongs to the defaults, that of CIFAR-100 to 100 classes, that of ImageNet16-120 to 120 classes and size
    16. The reference is the residual block.

    Args:
        classes: Number of outputs.
        size: Height and width of the input.
        in_channels: Channels of the input.
        cells: Per stage; the published networks have five.
        merge: Which networks `canonical` takes for one. `published` counts as the benchmark does, where a skip is its
            input, an operation on nothing is nothing, and the order of a sum does not matter: 6,466 networks are left.
            That overlooks sums in sums, and nothing as a term of a sum; `all` does not: 4,930. `none`: 15,625. What
            stands for several is the network with the fewest MACs, of several the one with the smallest option indices.
    """

    input_shape: tuple[int, int, int]

    def __init__(
        self, *, classes: int = 10, size: int = 32, in_channels: int = 3, cells: int = 5, merge: Merge = "published"
    ) -> None:
        nats.check(classes, size, in_channels)
        if cells < 1:
            raise ConfigError(f"cells must be at least 1; got {cells}")
        if merge not in ("published", "all", "none"):
            raise ConfigError(f"merge must be published, all or none; got {merge!r}")
        self.choices = tuple(Choice(f"node{node}<{source}", _OPERATIONS) for source, node in nats.EDGES)
        self.input_shape = (in_channels, size, size)
        self.classes, self.cells, self.merge = classes, cells, merge

    @property
    def reference(self) -> Arch:
        return self.canonical(tuple(map(_OPERATIONS.index, _RESIDUAL)))

    def build(self, arch: Arch) -> nn.Module:
        operations = [_OPERATIONS[a] for a in arch]
        network = self.network(lambda a, b: nats.Cell(operations, a, b))
        return fx.symbolic_trace(network)  # a graph of torch's own modules only

    def supernet(self) -> Supernet:
        return _TopologySupernet(self).to(memory_format=torch.channels_last)  # on a CPU 1.4 to 1.8 times as fast

    def network(self, cell: Callable[[int, int], nn.Module]) -> nats.Network:
        """The network around cells, which `cell` makes of their channels before and after."""
        widths = [c for c in _WIDTHS for _ in range(self.cells + 1)]
        reductions = (self.cells + 1, 2 * self.cells + 2)
        return nats.Network(self.input_shape[0], self.classes, widths, reductions, cell)

    def canonical(self, arch: Arch) -> Arch:
        return arch if self.merge == "none" else _representatives(self.merge)[arch]

    def key(self, arch: Arch) -> str:
        a, b, c, d, e, f = (_OPERATIONS[i] for i in arch)
        return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"

    def account(self, metric: str) -> Tables | None:
        """Every operation costs what it costs, also one whose result is not used: the network runs it."""
        if metric not in ("macs", "params"):
            return None
        value = {"macs": nats.macs, "params": nats.params}[metric]
        fixed = sum(value(layer.key(())) for layer in self._fixed())
        edge = torch.tensor([self._everywhere(name, metric) for name in _OPERATIONS], dtype=torch.float64)
        return Tables((edge,) * len(nats.EDGES), {}, fixed)

    def steps(self) -> Sequence[Tables]:
        """Around the cells, and in a cell of the first stage: no later one is larger."""
        size = self.input_shape[1]
        x, classes = Axis((self.input_shape[0],)), Axis((self.classes,))
        found = [nats.alive(self.choices, (x, size), (Axis(_WIDTHS[:1]), size))]
        for a, b in pairwise(_WIDTHS):
            found += nats.reduction_steps(self.choices, size, Axis((a,)), Axis((b,)))
            size = nats.halved(size)
        found.append(nats.alive(self.choices, (Axis(_WIDTHS[-1:]), 1), (classes, 1)))
        return (*found, *(step * (_WIDTHS[0] * self.input_shape[1] ** 2) for step in _cell_steps()))

    @cached_property
    def _operators(self) -> tuple[Operators, Catalogue]:
        """Those of the equal `cells`, whose edges and options are in the same order."""
        channels, size, _ = self.input_shape
        plan = replace(PRESETS["nats"], cells=(self.cells,) * len(_WIDTHS), in_channels=channels, size=size)
        return operators(replace(plan, classes=self.classes))

    def _everywhere(self, name: str, metric: str) -> float:
        """The cost of an operation in all cells."""
        if name not in nats.KERNELS:
            return 0.0
        value, total, size = {"macs": nats.macs, "params": nats.params}[metric], 0.0, self.input_shape[1]
        for c in _WIDTHS:
            layer = Layer(name, "conv", (size, size), nats.KERNELS[name], 1, False, Axis((c,)), Axis((c,)))
            total += self.cells * value(layer.key(()))
            size = nats.halved(size)
        return total

    def _fixed(self) -> Iterator[Layer]:
        """The layers outside of the cells."""
        size, widths = self.input_shape[1], [Axis((c,)) for c in _WIDTHS]
        yield nats.stem_layer(size, self.input_shape[0], widths[0])
        for i, (a, b) in enumerate(pairwise(widths), 1):
            yield from nats.reduction_layers(f"reduction{i}", size, a, b)
            size = nats.halved(size)
        yield nats.classifier_layer(widths[-1], self.classes)


def _mixed_cell(c_in: int, c_out: int) -> nn.Module:
    """All operations on every edge."""
    return Cell(
        [Mixed([None if o == nats.NONE else nats.operation(o, c_in, c_out) for o in _OPERATIONS]) for _ in nats.EDGES]
    )


class _TopologySupernet(Supernet):
    """All operations on every edge of every cell; the cells share the gates."""

    def __init__(self, space: NatsTopology) -> None:
        super().__init__()
        self.space, self.network = space, space.network(_mixed_cell)

    def forward(self, x: Inputs, gates: Sequence[Tensor]) -> Tensor:
        y = trees.single(x, self)
        net = self.network
        y = net.stem(y)
        for cell in net.cells:
            y = cell(y, gates=gates) if isinstance(cell, Cell) else cell(y)
        found: Tensor = net.head(y)
        return found

    def extract(self, arch: Arch) -> nn.Module:
        with torch.device("meta"):
            plain = self.space.build(arch)
        cells = sum(isinstance(cell, Cell) for cell in self.network.cells)
        return inherit_path(plain, self.network, arch * cells)


def _cell_steps() -> Iterator[Tables]:
    """Feature maps alive while each operation with a result of its own runs; the largest of several tables counts.

    Its input and its result are alive, the sum that it is added to, and every other node that a later operation takes:
    one table for each operation that may be the reason.
    """
    own = torch.tensor([2.0 if name in (nats.POOL, *nats.KERNELS) else -8.0 for name in _OPERATIONS])
    some = torch.tensor([float(name != nats.NONE) for name in _OPERATIONS])
    for e, (source, node) in enumerate(nats.EDGES):
        later = range(e + 1, len(nats.EDGES))
        others = [[k for k in later if nats.EDGES[k][0] == n] for n in range(node) if n != source]
        others.append([k for k in range(e) if nats.EDGES[k][1] == node])
        for reasons in product(*(edges for edges in others if edges)):
            unary = [own if k == e else some * (k in reasons) for k in range(len(nats.EDGES))]
            yield Tables(tuple(u.double() for u in unary))


@lru_cache(maxsize=2)
def _representatives(merge: Merge) -> dict[Arch, Arch]:
    """Every arch -> the one that stands for all that compute the same."""
    values = _values(_published_sum if merge == "published" else _true_sum)
    best: dict[str, Arch] = {}
    for arch, value in sorted(values.items(), key=lambda item: (_work(item[0]), item[0])):
        best.setdefault(value, arch)
    return {arch: best[value] for arch, value in values.items()}


def _work(arch: Arch) -> int:
    """In proportion to the MACs of a cell."""
    return sum(nats.KERNELS.get(_OPERATIONS[a], 0) ** 2 for a in arch)


def _values(add: Callable[[Sequence[str]], str]) -> dict[Arch, str]:
    """What every cell computes, in words; `add` words the sum of several terms."""
    cells: list[tuple[Arch, tuple[str, ...]]] = [((), (_INPUT,))]
    for inputs in (1, 2, 3):
        cells = [
            ((*arch, *more), (*nodes, add([_applied(a, node) for a, node in zip(more, nodes, strict=True)])))
            for arch, nodes in cells
            for more in product(range(len(_OPERATIONS)), repeat=inputs)
        ]
    return {arch: nodes[-1] for arch, nodes in cells}


def _applied(a: int, before: str) -> str:
    name = _OPERATIONS[a]
    if name == nats.NONE or before == _NOTHING:
        return _NOTHING
    return before if name == nats.SKIP else f"({before})@{name}"


def _published_sum(terms: Sequence[str]) -> str:
    """The terms in order, nothing among them; a sum that a skip passes on stays together."""
    return "+".join(sorted(terms))


def _true_sum(terms: Sequence[str]) -> str:
    """The terms of all sums in order, without those that are nothing."""
    found = [part for term in terms if term != _NOTHING for part in _parts(term)]
    return "+".join(sorted(found)) or _NOTHING


def _parts(value: str) -> Iterator[str]:
    """The terms of a sum: it is cut at every plus sign that is not in brackets."""
    depth = start = 0
    for i, sign in enumerate(value):
        depth += (sign == "(") - (sign == ")")
        if sign == "+" and not depth:
            yield value[start:i]
            start = i + 1
    yield value[start:]

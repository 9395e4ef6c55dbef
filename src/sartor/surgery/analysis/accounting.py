"""What a network costs as a function of how many units of each group stay: exact, without building it."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from math import prod
from operator import add

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from sartor.core.records import Axis, Choice, Layer
from sartor.core.tables import Tables
from sartor.surgery.analysis.operators.recurrent import inside, is_recurrent
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.analysis.trace import BATCH, place
from sartor.surgery.analysis.tracker import argument, operator_name, tensor
from sartor.surgery.analysis.units import Dim
from sartor.surgery.analysis.work import Use, uses

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class Ladder:
    """One choice: how many units of every family stay under each option.

    Attributes:
        choice: Name and options.
        families: The units, each family in the order in which they are kept.
        kept: `(options, families)`.
    """

    choice: Choice
    families: tuple[NDArray[np.int64], ...]
    kept: NDArray[np.int64]


@dataclass(frozen=True)
class Size:
    """A number of indices: a constant and one summand per choice.

    Attributes:
        tables: Choice -> `(options,)`.
    """

    constant: float
    tables: Mapping[int, Counts]

    def at(self, arch: Sequence[int]) -> float:
        """The number in one arch."""
        return self.constant + sum(float(t[arch[c]]) for c, t in self.tables.items())


class Accounts:
    """Tables of MACs, parameters and memory, and the list of layers, of a cut network.

    Args:
        skeleton: Of the network.
        network: Whose parameters are counted, those that no label touches included.
        ladders: The choices.
    """

    def __init__(self, skeleton: Skeleton, network: nn.Module, ladders: Sequence[Ladder]) -> None:
        self.skeleton, self.tracker, self.ladders = skeleton, skeleton.tracker, tuple(ladders)
        self._owner = np.full(len(skeleton.units) + 1, -1)
        self._rank, self._family = np.zeros_like(self._owner), np.zeros_like(self._owner)
        for c, ladder in enumerate(ladders):
            for f, family in enumerate(ladder.families):
                self._owner[family], self._rank[family], self._family[family] = c, np.arange(len(family)), f
        self._sizes: dict[int, Size] = {}
        self._on: dict[fx.Node, Size] = {}
        for block in skeleton.blocks.values():
            self._on |= dict.fromkeys(block.members, self._switch(block.switch))
        self._network = network
        self._shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}

    def _switch(self, unit: int) -> Size:
        """One if a block runs, zero if it is skipped."""
        return self._count(np.array([[unit]]), 1)

    def _with_switch(self, node: fx.Node, sizes: list[Size]) -> list[Size]:
        return [*sizes, self._on[node]] if node in self._on else sizes

    def size(self, dim: Dim, full: int) -> Size:
        """The number of kept indices of a dimension with `full` of them, the batch left out."""
        roots = None if dim is None else self.skeleton.roots(dim)
        if dim is None or roots is None:
            return Size(full, {})
        if id(dim) not in self._sizes:
            self._sizes[id(dim)] = self._count(roots, BATCH if self.skeleton.period(dim) else 1)
        return self._sizes[id(dim)]

    def _count(self, roots: NDArray[np.int64], examples: int) -> Size:
        owners = self._owner[roots]
        column = owners.argmax(1)
        rows = np.arange(len(roots))
        unit, owner = roots[rows, column], owners[rows, column]
        tables = {}
        for c in np.unique(owner[owner >= 0]).tolist():
            mine = unit[owner == c]
            kept = self.ladders[c].kept[:, self._family[mine]]  # (options, indices)
            tables[c] = (self._rank[mine] < kept).sum(1) / examples
        return Size(float((owner < 0).sum()) / examples, tables)

    def sizes(self, node: fx.Node) -> list[Size]:
        """The sizes of a tensor's dimensions for one example."""
        shape, dims = self.tracker.shape(node), self.tracker.dims(node)
        return [self.size(dim, full) for dim, full in zip(dims, shape, strict=True)]

    def macs(self) -> Tables | None:
        """Multiply-adds with weights for one example (`sartor.core.counting`); None if three choices meet in a layer,
        or if a part that is left as it is does not run by itself.
        """
        if self._work is None:
            return None
        return self._sum(
            (use.times, self._with_switch(use.node, [self.size(*size) for size in use.sizes])) for use in self._work
        )

    @cached_property
    def _work(self) -> tuple[Use, ...] | None:
        return uses(self.skeleton, self._network)

    def params(self) -> Tables | None:
        """Parameters; None if three choices meet in one."""
        labels = dict(self.skeleton.coupling.weights())
        terms, inside = [], self._inside()
        for name, shape in self._shapes.items():
            dims = labels.get(name) or [None] * len(shape)
            sizes = [self.size(dim, full) for dim, full in zip(dims, shape, strict=True)]
            terms.append((1.0, [*sizes, inside[name]] if name in inside else sizes))
        return self._sum(terms)

    def _inside(self) -> dict[str, Size]:
        """Parameters that only one block uses -> whether it runs."""
        found = {}
        for node in self.skeleton.nodes:
            if node.op == "placeholder" and node.name in self.skeleton.weights and node.users:
                switches = {id(self._on.get(user)): self._on.get(user) for user in node.users}
                only = next(iter(switches.values())) if len(switches) == 1 else None
                if only is not None:
                    found[self.skeleton.weights[node.name]] = only
        return found

    def layers(self) -> tuple[Layer, ...]:
        """Convolutions and linear layers, in order; a layer whose channels several choices set comes in parts."""
        found: list[Layer] = []
        for use in self._work or ():
            node = use.node
            kind, in_size, kernel, stride, out = _geometry(self.skeleton, use)
            for i, first in enumerate(self._axes(self.size(*use.into))):
                for j, second in enumerate(self._axes(self.size(*use.out))):
                    label = f".{use.label}" if use.label else ""
                    name = place(node) + label + (f"[{i},{j}]" if i or j else "")
                    bias = isinstance(argument(node, 2, "bias"), fx.Node)
                    found.append(Layer(name, kind, in_size, kernel, stride, bias, first, second, out=out))
        return tuple(found)

    def memory(self) -> tuple[Tables, ...]:
        """Values that live at once, for every step that makes new ones; the largest is the peak."""
        return tuple(self._live())

    def _axes(self, size: Size) -> Iterator[Axis]:
        if size.constant or not size.tables:
            yield Axis((int(size.constant),))
        for c, table in size.tables.items():
            yield Axis(tuple(int(n) for n in table), c)

    def _sum(self, terms: Iterator[tuple[float, list[Size]]] | Sequence[tuple[float, list[Size]]]) -> Tables | None:
        total = _Sum(self.ladders)
        for factor, sizes in terms:
            if not total.add(factor, sizes):
                return None
        return total.tables()

    def _live(self) -> Iterator[Tables]:
        storage, last = self._storage()
        alive: dict[fx.Node, Tables] = {}
        for i, node in enumerate(self.skeleton.nodes):
            if is_recurrent(node):
                running = [*alive.values(), *self._running(node)]
                yield reduce(add, running, Tables.zeros([ladder.choice for ladder in self.ladders]))
            if storage.get(node) is node and isinstance(node.meta.get("val"), Tensor):
                held = self._sum([(1.0, self._with_switch(node, self.sizes(node)))])
                alive |= {} if held is None else {node: held}
                if node.op != "placeholder":
                    yield reduce(add, alive.values(), Tables.zeros([ladder.choice for ladder in self.ladders]))
            alive = {made: size for made, size in alive.items() if last.get(made, -1) > i}

    def _running(self, node: fx.Node) -> Iterator[Tables]:
        """What is alive while a recurrent operator runs: gates, what every step gives, and that put together."""
        for times, places in inside(node):
            sizes = [self.sizes(other)[d] for other, d in places]
            held = self._sum([(times, self._with_switch(node, sizes))])
            if held is not None:
                yield held

    def _storage(self) -> tuple[dict[fx.Node, fx.Node], dict[fx.Node, int]]:
        """Node -> the node whose memory it works in; and that node -> when it is needed last."""
        entrances = set(self.skeleton.coupling.traced.inputs.values())
        storage: dict[fx.Node, fx.Node] = {}
        last: dict[fx.Node, int] = {}
        for i, node in enumerate(self.skeleton.nodes):
            inputs = [storage[n] for n in node.all_input_nodes if n in storage]
            last |= dict.fromkeys(inputs, i)
            if node.op == "call_function":
                fresh = allocates(node) or not inputs
                storage[node] = node if fresh else inputs[0]
            elif node.name in entrances:
                storage[node] = node
        return storage, last


def allocates(node: fx.Node) -> bool:
    """Whether an operator writes into memory of its own; others work over their first input."""
    of = node.args[0] if node.target is operator.getitem else node
    return operator_name(node) in ALLOCATES or (isinstance(of, fx.Node) and is_recurrent(of))


def examples(skeleton: Skeleton, node: fx.Node) -> int:
    """How many examples share a tensor's numbers: those of the traced batch, or one if it depends on none."""
    return BATCH if any(skeleton.period(dim) for dim in skeleton.tracker.dims(node)) else 1


class _Sum:
    """A sum of products of sizes, as tables."""

    def __init__(self, ladders: Sequence[Ladder]) -> None:
        self.unary = [np.zeros(len(ladder.choice.options)) for ladder in ladders]
        self.pairs: dict[tuple[int, int], Counts] = {}
        self.constant = 0.0

    def add(self, factor: float, sizes: Sequence[Size]) -> bool:
        """Add a product; False if more than two of its factors depend on choices, and different ones."""
        factor *= prod(s.constant for s in sizes if not s.tables)
        open_sizes = [s for s in sizes if s.tables]
        while len(open_sizes) > 2:
            merged = _same_choice(open_sizes)
            if merged is None:
                return False
            open_sizes = merged
        if not open_sizes:
            self.constant += factor
        elif len(open_sizes) == 1:
            self._line(factor, open_sizes[0])
        else:
            self._grid(factor, *open_sizes)
        return True

    def _line(self, factor: float, size: Size) -> None:
        self.constant += factor * size.constant
        for c, table in size.tables.items():
            self.unary[c] += factor * table

    def _grid(self, factor: float, a: Size, b: Size) -> None:
        self._line(factor * b.constant, a)
        self._line(factor * a.constant, b)
        self.constant -= factor * a.constant * b.constant
        for i, first in a.tables.items():
            for j, second in b.tables.items():
                if i == j:
                    self.unary[i] += factor * first * second
                else:
                    grid = factor * np.outer(first, second)
                    key, grid = ((i, j), grid) if i < j else ((j, i), grid.T)
                    self.pairs[key] = self.pairs[key] + grid if key in self.pairs else grid

    def tables(self) -> Tables:
        return Tables(
            tuple(torch.from_numpy(u) for u in self.unary),
            {k: torch.from_numpy(np.ascontiguousarray(t)) for k, t in self.pairs.items()},
            self.constant,
        )


def _same_choice(sizes: Sequence[Size]) -> list[Size] | None:
    """Two of the sizes that depend on the same single choice as one; None if there are none."""
    for i, a in enumerate(sizes):
        for j, b in enumerate(sizes[:i]):
            if len(a.tables) == 1 and a.tables.keys() == b.tables.keys():
                c = next(iter(a.tables))
                whole = (a.constant + a.tables[c]) * (b.constant + b.tables[c])
                return [s for k, s in enumerate(sizes) if k not in (i, j)] + [Size(0.0, {c: whole})]
    return None


def _geometry(skeleton: Skeleton, use: Use) -> tuple[str, tuple[int, int], int | tuple[int, int], int, tuple[int, int]]:
    """Kind, input size, kernel, stride and output size of a layer.

    Further dimensions, and several images of one example, are folded into the first.
    """
    node = use.node
    if operator_name(node) not in _CONVOLUTIONS:
        positions = (1, round(use.times * prod(size.full for size in use.positions)))
        return "linear", positions, 1, 1, positions
    x, weight = tensor(node, 0), tensor(node, 1)
    before, after = tuple(x.meta["val"].shape), tuple(node.meta["val"].shape)
    taps = tuple(int(n) for n in weight.meta["val"].shape[2:])
    stride = argument(node, 3, "stride", 1)
    step = int(stride[0] if isinstance(stride, (list, tuple)) else stride)
    groups = int(argument(node, 6, "groups", 1))
    kind = "conv" if groups == 1 else "depthwise" if groups == before[1] == after[1] else "grouped"
    kernel = _pair(taps)
    square = len(taps) == 2 and kernel[0] == kernel[1]
    images = int(after[0] / examples(skeleton, node))
    return kind, _pair(before[2:], images), kernel[0] if square else kernel, step, _pair(after[2:], images)


def _pair(sizes: Sequence[int], images: int = 1) -> tuple[int, int]:
    """Height and width; one dimension has height 1, of three the first two are folded, and images are stacked."""
    *first, last = (int(n) for n in sizes)
    return images * int(prod(first)), last


_CONVOLUTIONS = frozenset(f"conv{kind}{rank}d" for kind in ("", "_transpose") for rank in "123")
ALLOCATES = _CONVOLUTIONS | frozenset(
    [
        "linear",
        "matmul",
        "bmm",
        "mm",
        "baddbmm",
        "addmm",
        "einsum",
        "scaled_dot_product_attention",
        "cat",
        "stack",
        "mean",
        "sum",
        "adaptive_avg_pool2d",
        "avg_pool2d",
        "max_pool2d",
        "adaptive_max_pool2d",
        "adaptive_avg_pool1d",
        "upsample_bilinear2d",
        "upsample_nearest2d",
        "upsample_bicubic2d",
        "pad",
        "constant_pad_nd",
        "index",
        "index_select",
        "permuted",
        "expand",
        "repeat",
        "roll",
    ]
)

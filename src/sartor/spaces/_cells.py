"""Networks of equal cells: what an edge may run, where the cells stand, what all of it costs.

Source: Liu, Simonyan and Yang, "DARTS" (ICLR 2019); Dong and Yang, "NAS-Bench-201" (ICLR 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Literal, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sartor.core.errors import ConfigError
from sartor.core.records import Operator, Operators
from sartor.spaces import _nats as nats
from sartor.spaces._graph import Cell, edges_of
from sartor.spaces._operators import Catalogue, Make

NONE, SKIP = "none", "skip"
_CONVS = {"conv1": 1, "conv3": 3}
_SEPARABLE = {"sep3": 3, "sep5": 5}
_DILATED = {"dil3": 3, "dil5": 5}
OPERATIONS = (NONE, SKIP, "avg3", "max3", *_CONVS, *_DILATED, *_SEPARABLE)

Kind: TypeAlias = Literal["normal", "reduction", "residual"]


class Shape(NamedTuple):
    """A feature map."""

    channels: int
    size: int

    @property
    def values(self) -> int:
        """Numbers in it."""
        return self.channels * self.size**2

    def __str__(self) -> str:
        return f"{self.size}x{self.size}x{self.channels}"


class Factorised(nn.Module):
    """Half the size: two 1x1 convolutions with stride 2, one of them a pixel further down and right, and a norm."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(c_in, c_out // 2, 1, 2, bias=False)
        self.conv_2 = nn.Conv2d(c_in, c_out - c_out // 2, 1, 2, bias=False)
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(x)
        shifted = functional.pad(x[:, :, 1:, 1:], (0, 1, 0, 1))  # odd sizes are rounded up, as elsewhere
        return cast(Tensor, self.bn(torch.cat([self.conv_1(x), self.conv_2(shifted)], 1)))


def _depthwise(c: int, kernel: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    """ReLU, a depthwise and a 1x1 convolution, norm."""
    padding = dilation * (kernel // 2)
    deep = nn.Conv2d(c, c, kernel, stride, padding, dilation, groups=c, bias=False)
    return [nn.ReLU(), deep, nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c)]


class Edge(NamedTuple):
    """Where an operation stands: what enters it, and its stride."""

    x: Shape
    stride: int

    @property
    def y(self) -> Shape:
        """What leaves it."""
        return Shape(self.x.channels, nats.halved(self.x.size) if self.stride == 2 else self.x.size)

    def module(self, name: str) -> nn.Module | None:
        """The operation; None for `none`."""
        c, stride = self.x.channels, self.stride
        if name == SKIP:
            return nn.Identity() if stride == 1 else Factorised(c, c)
        if name in _CONVS:
            return nats.relu_conv_norm(c, c, _CONVS[name], stride)
        if name in _DILATED:
            return nats.Op(nn.Sequential(*_depthwise(c, _DILATED[name], stride, 2)))
        if name in _SEPARABLE:
            kernel = _SEPARABLE[name]
            return nats.Op(nn.Sequential(*_depthwise(c, kernel, stride), *_depthwise(c, kernel, 1)))
        if name == "max3":
            return nn.MaxPool2d(3, stride, 1)
        return nn.AvgPool2d(3, stride, 1, count_include_pad=False) if name == "avg3" else None

    def weights(self, name: str) -> tuple[int, int]:
        """Weights of its convolutions, each of which is used once per pixel of the output; numbers of its norms."""
        c = self.x.channels
        if name in _CONVS:
            return _CONVS[name] ** 2 * c**2, 2 * c
        if name in _DILATED:
            return (_DILATED[name] ** 2 + c) * c, 2 * c
        if name in _SEPARABLE:
            return 2 * (_SEPARABLE[name] ** 2 + c) * c, 4 * c
        return (c**2, 2 * c) if name == SKIP and self.stride == 2 else (0, 0)

    def idle(self, name: str) -> bool:
        """Whether nothing runs."""
        return name == NONE or (name == SKIP and self.stride == 1)

    def shallow(self, name: str) -> bool:
        """Whether there are no feature maps within, between its input and its output."""
        return name not in _DILATED and name not in _SEPARABLE

    def key(self, name: str) -> str:
        """What a table of latencies calls it."""
        return f"{name}-input:{self.x}-output:{self.y}-stride:{self.stride}"


class Before(NamedTuple):
    """What an input of a cell goes through: a 1x1 convolution, factorised if it halves the size."""

    x: Shape
    y: Shape

    @property
    def kind(self) -> str:
        """What a table of latencies calls it."""
        return "factorised" if self.x.size != self.y.size else "adapt"

    def module(self) -> nn.Module:
        """A fresh one."""
        if self.x.size != self.y.size:
            return Factorised(self.x.channels, self.y.channels)
        return nats.relu_conv_norm(self.x.channels, self.y.channels, 1)

    @property
    def key(self) -> str:
        """What a table of latencies calls it."""
        return f"{self.kind}-input:{self.x}-output:{self.y}"


@dataclass(frozen=True)
class Place:
    """A cell, or a residual block, in its network.

    Attributes:
        inputs: What enters, the older one first.
        x: What the inputs are made to be.
        y: What the nodes are.
        out: What leaves.
        kept: Of the network before, what is needed after as well.
    """

    kind: Kind
    inputs: tuple[Shape, ...]
    x: Shape
    y: Shape
    out: Shape
    before: tuple[Before, ...] = ()
    kept: int = 0

    @property
    def stride(self) -> int:
        """Between inputs and nodes."""
        return 1 if self.x.size == self.y.size else 2

    def edge(self, source: int) -> Edge:
        """What starts at an input or a node."""
        return Edge(self.x, self.stride) if source < len(self.inputs) else Edge(self.y, 1)


@dataclass(frozen=True)
class Plan:
    """Everything but the operations that are chosen; see the settings of the space."""

    nodes: int
    operations: tuple[str, ...]
    stem: int
    cells: tuple[int, ...]
    widths: tuple[int, ...]
    inputs: int
    concat: bool
    separate: bool
    keep: int
    size: int = 32
    classes: int = 10
    in_channels: int = 3
    edges: tuple[tuple[int, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        nats.check(self.classes, self.size, self.in_channels)
        if not 0 < len(self.cells) == len(self.widths):
            raise ConfigError(f"cells and widths need one number per stage each; got {self.cells} and {self.widths}")
        if min(self.nodes, self.stem, *self.cells, *self.widths) < 1 or self.keep < 0:
            raise ConfigError(
                "nodes, stem, cells and widths must be at least 1, keep at least 0; got "
                f"{self.nodes}, {self.stem}, {self.cells}, {self.widths} and {self.keep}"
            )
        if self.inputs not in (1, 2):
            raise ConfigError(f"a cell has 1 or 2 inputs; got {self.inputs}")
        self._check_operations()
        if self.size < 2 ** len(self.widths):
            raise ConfigError(
                f"size {self.size} is halved {len(self.widths) - 1} times; it must be at least {2 ** len(self.widths)}"
            )
        object.__setattr__(self, "edges", edges_of(self.inputs, self.nodes))

    def _check_operations(self) -> None:
        unknown = [o for o in self.operations if o not in OPERATIONS]
        if unknown or len(set(self.operations)) != len(self.operations) or not set(self.operations) - {NONE, SKIP}:
            raise ConfigError(
                f"operations are different ones of {', '.join(OPERATIONS)}, not only none and skip; "
                f"got {', '.join(self.operations) or 'nothing'}"
            )
        if self.keep and NONE not in self.operations:
            raise ConfigError(f"keep = {self.keep} takes edges away, for which operations must name 'none'")

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of cells that have choices of their own."""
        return ("normal", "reduction") if self.separate else ("normal",)

    def places(self) -> Iterator[Place]:
        """All cells and residual blocks, in order."""
        last = Shape(self.stem, self.size)
        recent, blocks = (last,) * self.inputs, tuple(self._blocks())
        for i, (kind, width) in enumerate(blocks):
            place = self._place(kind, width, recent)
            later = self.inputs == 2 and i + 1 < len(blocks)
            yield replace(place, kept=recent[-1].values if later else 0)
            recent = (*recent, place.out)[-self.inputs :]

    def _blocks(self) -> Iterator[tuple[Kind, int]]:
        for stage, (count, width) in enumerate(zip(self.cells, self.widths, strict=True)):
            if stage:
                yield "reduction" if self.separate else "residual", width
            for _ in range(count):
                yield "normal", width

    def _place(self, kind: Kind, width: int, recent: tuple[Shape, ...]) -> Place:
        size = recent[-1].size
        y = Shape(width, size if kind == "normal" else nats.halved(size))
        out = Shape(width * self.nodes, y.size) if self.concat else y
        if kind == "residual":
            return Place(kind, recent[-1:], recent[-1], out, out)
        x = Shape(width, size)
        before = tuple(Before(r, x) for r in recent) if self.inputs == 2 or recent[-1] != x else ()
        return Place(kind, recent, x, y, out, before)

    @property
    def features(self) -> Shape:
        """What the last cell gives."""
        return list(self.places())[-1].out


def _stem(plan: Plan) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(plan.in_channels, plan.stem, 3, 1, 1, bias=False), nn.BatchNorm2d(plan.stem))


class Head(nn.Module):
    """Norm and ReLU where the cells end in none, global pooling, a linear layer."""

    def __init__(self, channels: int, classes: int, *, norm: bool) -> None:
        super().__init__()
        self.lastact = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()) if norm else nn.Identity()
        self.global_pooling, self.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.classifier(self.global_pooling(self.lastact(x)).flatten(1)))


_NATS = (NONE, SKIP, "avg3", "conv1", "conv3")
_DARTS = (NONE, SKIP, "avg3", "max3", "dil3", "dil5", "sep3", "sep5")
PRESETS = {
    "nats": Plan(3, _NATS, 16, (5, 5, 5), (16, 32, 64), 1, False, False, 0),
    "darts": Plan(4, _DARTS, 48, (2, 2, 2), (16, 32, 64), 2, True, True, 2),
}


class Network(Head):
    """The first convolution, cells and residual blocks, the head.

    Args:
        plan: Of the network.
        layers: What the edges of a cell run.
    """

    def __init__(self, plan: Plan, layers: Callable[[Place], Sequence[nn.Module | None]]) -> None:
        super().__init__(plan.features.channels, plan.classes, norm=not plan.concat)
        self.inputs, self.stem = plan.inputs, _stem(plan)
        self.kinds = tuple(place.kind for place in plan.places())
        self.cells = nn.ModuleList(
            nats.Reduction(place.x.channels, place.y.channels)
            if place.kind == "residual"
            else Cell(
                layers(place),
                before=[b.module() for b in place.before],
                inputs=plan.inputs,
                stride=place.stride,
                concat=plan.concat,
            )
            for place in plan.places()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, lambda _, cell, recent: cell(*recent))

    def run(self, x: Tensor, call: Callable[[Kind, Cell, Sequence[Tensor]], Tensor]) -> Tensor:
        """The output, `(batch, classes)`, where `call` runs a cell on its inputs."""
        recent = (self.stem(x),) * self.inputs
        for kind, cell in zip(self.kinds, self.cells, strict=True):
            y = call(kind, cell, recent) if isinstance(cell, Cell) else cell(recent[-1])
            recent = (*recent, y)[-self.inputs :]
        return super().forward(recent[-1])


def constants(plan: Plan) -> tuple[int, int]:
    """MACs and parameters of what no choice changes."""
    area, last = plan.size**2, plan.features.channels
    weights = 9 * plan.in_channels * plan.stem
    macs, params = weights * area, weights + 2 * plan.stem
    for place in plan.places():
        for x, y, taps, norms in _fixed_layers(place):
            weights = taps * x * y.channels
            macs, params = macs + weights * y.size**2, params + weights + norms
    head = last * plan.classes
    return macs + head, params + head + plan.classes + (0 if plan.concat else 2 * last)


def _fixed_layers(place: Place) -> Iterator[tuple[int, Shape, int, int]]:
    """Channels in, output, entries of a kernel and numbers of the norm."""
    for before in place.before:
        yield before.x.channels, before.y, 1, 2 * before.y.channels
    if place.kind == "residual":
        x, y = place.x.channels, place.y
        yield from ((x, y, 9, 2 * y.channels), (y.channels, y, 9, 2 * y.channels), (x, y, 1, 0))


def operators(plan: Plan) -> tuple[Operators, Catalogue]:
    """What networks run, edge by edge, without sums and concatenations; and who makes each operator."""
    catalogue = Catalogue()

    def at(key: str, x: Shape, make: Make) -> Operator:
        return catalogue.add(key, *x, make)

    def chosen(kind: Kind, source: int, name: str) -> tuple[Operator, ...]:
        edges = [place.edge(source) for place in places if place.kind == kind]
        return tuple(
            at(e.key(name), e.x, partial(cast(Callable[[str], nn.Module], e.module), name))
            for e in edges
            if not e.idle(name)
        )

    places, features = list(plan.places()), plan.features
    image = Shape(plan.in_channels, plan.size)
    fixed = [at(f"stem-input:{image}-output:{Shape(plan.stem, plan.size)}", image, partial(_stem, plan))]
    for place in places:
        fixed += [at(b.key, b.x, b.module) for b in place.before]
        if place.kind == "residual":
            residual = partial(nats.Reduction, place.x.channels, place.y.channels)
            fixed.append(at(f"residual-input:{place.x}-output:{place.y}", place.x, residual))
    head = partial(Head, features.channels, plan.classes, norm=not plan.concat)
    fixed.append(at(f"head-input:{features}-output:{plan.classes}", features, head))
    options = tuple(
        tuple(chosen(kind, source, name) for name in plan.operations) for kind in plan.kinds for source, _ in plan.edges
    )
    return Operators(tuple(fixed), options), catalogue


class Step(NamedTuple):
    """Values alive at one step of a cell.

    Attributes:
        constant: Always.
        own: Per operation of edge `edge`; hugely negative for those that have no such step.
        edge: Within the cell.
        needed: Edges -> values that are alive as well if any of those edges is used.
    """

    constant: int
    own: tuple[float, ...]
    edge: int
    needed: tuple[tuple[tuple[int, ...], int], ...]

    def terms(self, operations: Sequence[str]) -> Iterator[list[tuple[int, Tensor]]]:
        """Per edge what its options add; the largest of all these sums counts."""
        used = torch.tensor([float(name != NONE) for name in operations], dtype=torch.float64)
        own = torch.tensor(self.own, dtype=torch.float64) + self.constant
        for reasons in product(*(edges for edges, _ in self.needed)):
            pairs = zip(reasons, self.needed, strict=True)
            yield [(self.edge, own), *((edge, used * values) for edge, (_, values) in pairs)]


def steps(plan: Plan, place: Place) -> Iterator[Step]:
    """Values alive while each operation of a cell runs: its input, its result, and what others wait for."""
    for e, (source, node) in enumerate(plan.edges):
        edge, later = place.edge(source), range(e + 1, len(plan.edges))
        sizes = [place.x.values] * plan.inputs + [place.y.values] * plan.nodes
        done = range(plan.inputs, node) if plan.concat else range(0)
        constant = place.kept + sum(sizes[n] for n in done if n != source)
        waiting = {
            n: tuple(k for k in later if plan.edges[k][0] == n) for n in range(node) if n not in done and n != source
        }
        waiting[node] = tuple(k for k in range(e) if plan.edges[k][1] == node)
        needed = tuple((edges, sizes[n]) for n, edges in waiting.items() if edges)
        x, y = edge.x.values, edge.y.values
        yield Step(constant, _own(plan, edge.idle, x + y), e, needed)
        again = () if source in done else tuple(k for k in later if plan.edges[k][0] == source)
        held = ((again, x),) if again else ()
        if not all(map(edge.shallow, plan.operations)):
            inner = 2 * y + (x if source in done else 0)
            yield Step(constant, _own(plan, edge.shallow, inner), e, (*needed, *held))


def _own(plan: Plan, out: Callable[[str], bool], values: int) -> tuple[float, ...]:
    return tuple(-1e15 if out(name) else float(values) for name in plan.operations)


def around(plan: Plan) -> int:
    """The most values alive outside of the graphs of cells."""
    found = [Shape(plan.in_channels, plan.size).values + Shape(plan.stem, plan.size).values]
    found.append(plan.features.channels + plan.classes)
    for number, place in enumerate(plan.places()):
        ready = 0
        for i, before in enumerate(place.before):
            waiting = sum(x.values for x in place.inputs[i + 1 :]) if number else 0  # at first, they are the same
            found.append(ready + before.x.values + before.y.values + waiting)
            ready += before.y.values
        if place.kind == "residual":
            x, half, y = place.x.values, place.x.channels * place.y.size**2, place.y.values
            found += [x + 2 * y, x + half + y, half + 2 * y + place.kept]
    return max(found)

"""BlockQNN's network structure code: a block is a list of layers, each with the earlier ones that it takes.

Source: Zhong, Yan, Wu, Shao and Liu, "Practical block-wise neural network architecture generation" (CVPR 2018,
arXiv:1708.05552). Deviations, as the paper's text was not at hand for all details:

* The terminal layer is the option `none`: everything after it is absent.
* Poolings of 1x1, which are identities, are left out.
* A block is as wide as its stage at every point: a 1x1 convolution stands at its start where its input has other
  channels, and behind every concatenation, that of the loose ends included.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Literal, cast

import torch
from torch import Tensor, fx, nn

from sartor.core.abilities import Accounted
from sartor.core.contracts import Space
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Choice
from sartor.spaces import _nats as nats

__all__ = ["Blocks"]

NONE, SKIP, ADD, CONCAT = "none", "skip", "add", "concat"
_CONVS = {"conv1": 1, "conv3": 3, "conv5": 5}
_POOLS = ("max3", "avg3")
TYPES = (NONE, SKIP, *_POOLS, *_CONVS, ADD, CONCAT)
"""Cheapest first, more or less."""
_NATS = {"conv1": "nor_conv_1x1", "conv3": "nor_conv_3x3", "avg3": nats.POOL}
_LIKE_NATS = {"widths": (16, 32, 64), "repeats": 5, "stages": "nats"}

Layer = tuple[str, int, int]
"""Its type, and the one or two that it takes: 0 is the input of the block, `i` its layer `i`."""


class Blocks(Space, Accounted):
    """Stages of equal blocks; a block is a graph of up to so many layers.

    Per layer there are three choices: `type`, and the one or two earlier layers (0 is the block's input) that it takes.
    A convolution is ReLU, convolution, norm; `max3` and `avg3` pool with stride 1; `add` and `concat` take two layers.
    Layers that none takes are loose ends; several are concatenated. The reference is a residual block.

    `canonical` clears what a layer does not take and all after the first `none`, and sorts what `add` takes.

    A network with `stages = "nats"`, widths of 16, 32 and 64 and 5 repeats whose block computes what a cell of
    NATS-Bench does has that cell's name in its tables (`key`); others have their code.

    Args:
        layers: At most so many per block; the paper has up to 23.
        repeats: Blocks per stage.
        widths: Channels per stage.
        stages: What is between stages: `pool` is 2x2 maximum pooling, before a block that widens; `nats` the residual
            block of NATS-Bench, with its norm and ReLU before the classifier.
        stem: Channels of the first 3x3 convolution; 0 takes the first width.
        size: Height and width of the input.
        classes: Number of outputs.
        in_channels: Channels of the input.

    Raises:
        ConfigError: A setting is out of range.
    """

    input_shape: tuple[int, int, int]

    def __init__(
        self,
        *,
        layers: int = 7,
        repeats: int = 4,
        widths: Sequence[int] = (32, 64, 128),
        stages: Literal["pool", "nats"] = "pool",
        stem: int = 0,
        size: int = 32,
        classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        nats.check(classes, size, in_channels)
        if min(layers, repeats, *widths) < 1 or not widths or stem < 0:
            raise ConfigError(
                f"layers, repeats and widths must be at least 1, stem at least 0; got {layers}, {repeats}, "
                f"{tuple(widths)} and {stem}"
            )
        if stages not in ("pool", "nats") or (stages == "nats" and stem not in (0, widths[0])):
            raise ConfigError(f"stages is {stages!r} and stem {stem}; stages is pool or nats, which has no stem to set")
        if size < 2 ** len(widths):
            raise ConfigError(f"size {size} is halved {len(widths) - 1} times; it must be at least {2 ** len(widths)}")
        self.most, self.repeats, self.widths, self.stages = layers, repeats, tuple(widths), stages
        self.stem, self.classes, self.input_shape = stem or self.widths[0], classes, (in_channels, size, size)
        self.choices = tuple(
            choice
            for i in range(1, layers + 1)
            for choice in (
                Choice(f"layer{i}.type", TYPES),
                Choice(f"layer{i}.first", tuple(range(i))),
                Choice(f"layer{i}.second", tuple(range(i))),
            )
        )

    @property
    def reference(self) -> Arch:
        residual: list[Layer] = [("conv3", 0, 0), ("conv3", 1, 0), (ADD, 0, 2)]
        return self.arch(residual[: self.most] if self.most > 2 else residual[:1])

    def arch(self, code: Sequence[Layer]) -> Arch:
        """The arch of a block.

        Args:
            code: Its layers: type, and the one or two that it takes, 0 being the input.

        Raises:
            ConfigError: There are too many layers, or one takes a later one.
        """
        if len(code) > self.most:
            raise ConfigError(f"the code has {len(code)} layers, the space {self.most}; set layers = {len(code)}")
        found: list[int] = []
        for i, (name, first, second) in enumerate([*code, *[(NONE, 0, 0)] * (self.most - len(code))], 1):
            if name not in TYPES or not (0 <= first < i and 0 <= second < i):
                raise ConfigError(
                    f"layer {i} is {(name, first, second)}; it is one of {', '.join(TYPES)}, and takes layers 0 to "
                    f"{i - 1}"
                )
            found += [TYPES.index(name), first, second]
        return self.canonical(tuple(found))

    def code(self, arch: Arch) -> tuple[Layer, ...]:
        """The layers of its block, without the absent ones."""
        found = list[Layer]()
        for t, first, second in zip(arch[::3], arch[1::3], arch[2::3], strict=True):
            if TYPES[t] == NONE:
                break
            found.append((TYPES[t], first, second))
        return tuple(found)

    def canonical(self, arch: Arch) -> Arch:
        found: list[int] = []
        for name, first, second in self.code(arch):
            both = (first, second) if name in (ADD, CONCAT) else (first, 0)
            found += [TYPES.index(name), *(sorted(both) if name == ADD else both)]
        return (*found, *[0] * (len(arch) - len(found)))

    def key(self, arch: Arch) -> str:
        words = _published().get(_computed(self.code(arch)), "") if self._is_like_nats() else ""
        return words or super().key(arch)

    def build(self, arch: Arch) -> nn.Module:
        code = self.code(arch)
        if self.stages == "pool":
            return fx.symbolic_trace(_Network(self, code))  # a graph of torch's own modules only
        widths = [c for c in self.widths for _ in range(self.repeats + 1)]
        reductions = [i * (self.repeats + 1) for i in range(1, len(self.widths))]
        channels = self.input_shape[0]
        return fx.symbolic_trace(
            nats.Network(channels, self.classes, widths, reductions, lambda a, b: _Block(code, a, b))
        )

    def tally(self, metric: str, archs: Sequence[Arch]) -> Tensor | None:
        """`edges` of the graph, and its `density`: edges over nodes; the input and the output are nodes, too."""
        if metric not in ("edges", "density"):
            return None
        codes = [self.code(self.canonical(arch)) for arch in archs]
        edges = torch.tensor([len(_edges(code)) for code in codes], dtype=torch.float64)
        if metric == "edges":
            return edges
        return edges / torch.tensor([len(code) + 2.0 for code in codes], dtype=torch.float64)

    def _is_like_nats(self) -> bool:
        return all(getattr(self, name) == value for name, value in _LIKE_NATS.items())


def _taken(layer: Layer) -> tuple[int, ...]:
    return layer[1:] if layer[0] in (ADD, CONCAT) else layer[1:2]


def _loose(code: Sequence[Layer]) -> list[int]:
    """What no layer takes; the input, if there is no layer."""
    used = {s for layer in code for s in _taken(layer)}
    return [i for i in range(1, len(code) + 1) if i not in used] or [0]


def _edges(code: Sequence[Layer]) -> list[tuple[int, int]]:
    end = len(code) + 1
    inner = [(s, i) for i, layer in enumerate(code, 1) for s in _taken(layer)]
    return inner + [(s, end) for s in _loose(code)]


class _Joined(nn.Module):
    """Several values side by side, then a 1x1 convolution to the width."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.narrow = nats.relu_conv_norm(count * width, width, 1)

    def forward(self, xs: list[Tensor]) -> Tensor:
        return cast(Tensor, self.narrow(torch.cat(xs, 1)))


class _Block(nn.Module):
    """The graph of a code."""

    def __init__(self, code: Sequence[Layer], c_in: int, width: int) -> None:
        super().__init__()
        self.code, self.ends = tuple(code), _loose(code)
        self.start = nn.Identity() if c_in == width else nats.relu_conv_norm(c_in, width, 1)
        self.layers = nn.ModuleList(_layer(name, width) for name, _, _ in code)
        self.end = _Joined(len(self.ends), width) if len(self.ends) > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        values = [self.start(x)]
        for layer, (name, first, second) in zip(self.layers, self.code, strict=True):
            if name == ADD:
                values.append(values[first] + values[second])
            else:
                values.append(layer([values[first], values[second]] if name == CONCAT else values[first]))
        ends = [values[i] for i in self.ends]
        return cast(Tensor, self.end(ends) if len(ends) > 1 else ends[0])


def _layer(name: str, width: int) -> nn.Module:
    if name in _CONVS:
        return nats.relu_conv_norm(width, width, _CONVS[name])
    if name == CONCAT:
        return _Joined(2, width)
    if name in _POOLS:
        return nn.MaxPool2d(3, 1, 1) if name == "max3" else nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    return nn.Identity()


class _Network(nn.Module):
    """A 3x3 convolution, stages of blocks with pooling in between, pooling, a classifier."""

    def __init__(self, space: Blocks, code: Sequence[Layer]) -> None:
        super().__init__()
        last = space.stem
        self.stem = nn.Sequential(nn.Conv2d(space.input_shape[0], last, 3, 1, 1, bias=False), nn.BatchNorm2d(last))
        self.blocks = nn.Sequential()
        for stage, width in enumerate(space.widths):
            if stage:
                self.blocks.append(nn.MaxPool2d(2, 2, ceil_mode=True))
            for _ in range(space.repeats):
                self.blocks.append(_Block(code, last, width))
                last = width
        self.relu, self.pool, self.classifier = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Linear(last, space.classes)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.classifier(self.pool(self.relu(self.blocks(self.stem(x)))).flatten(1)))


Value = tuple[object, ...]
"""What a value is computed from: the terms of a sum, in order; a term is an operation on a value, or the input."""
_INPUT: Value = (("x",),)


def _sum(terms: Sequence[Value]) -> Value:
    return tuple(sorted((t for term in terms for t in term), key=repr))


def _computed(code: Sequence[Layer]) -> Value:
    """The value of a block, empty where no cell of NATS-Bench computes it."""
    values, ends = [_INPUT], _loose(code)
    for name, first, second in code:
        if name == ADD:
            values.append(_sum([values[first], values[second]]))
        elif name == SKIP:
            values.append(values[first])
        else:
            values.append(((_NATS[name], values[first]),) if name in _NATS else ())
    return values[ends[0]] if len(ends) == 1 and all(values) else ()


@lru_cache(maxsize=1)
def _published() -> dict[Value, str]:
    """What the cells of NATS-Bench compute -> the name of such a cell: of several, one with the least work."""
    operations = (nats.NONE, nats.SKIP, nats.POOL, *nats.KERNELS)
    work = {name: nats.KERNELS.get(name, 0) ** 2 for name in operations}
    cells: list[tuple[tuple[str, ...], list[Value]]] = [((), [_INPUT])]
    for inputs in (1, 2, 3):
        cells = [
            ((*names, *more), [*nodes, _sum([_applied(n, v) for n, v in zip(more, nodes, strict=True)])])
            for names, nodes in cells
            for more in product(operations, repeat=inputs)
        ]
    found: dict[Value, str] = {}
    for (a, b, c, d, e, f), nodes in sorted(cells, key=lambda cell: sum(work[n] for n in cell[0])):
        found.setdefault(nodes[-1], f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|")
    found.pop((), None)  # a cell that computes nothing
    return found


def _applied(name: str, value: Value) -> Value:
    if name == nats.NONE or not value:
        return ()
    return value if name == nats.SKIP else ((name, value),)

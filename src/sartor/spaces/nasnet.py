"""NASNet's cells: normal and reduction cells of five blocks, each two inputs and two operations, added.

Source: Zoph, Vasudevan, Shlens and Le, "Learning transferable architectures for scalable image recognition" (CVPR 2018,
arXiv:1707.07012); sizes and details of the networks as in TF-Slim's definition of NASNet-A. Deviations:

* The two results of a block are always added, as in all published cells; the paper's search may also concatenate them.
* Without auxiliary head. Drop-path is a setting of trainings, not of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, fx, nn

from sartor.core.contracts import Space
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Choice
from sartor.spaces._cells import Factorised
from sartor.spaces._nats import halved, relu_conv_norm

__all__ = ["Nasnet"]

_SEPARABLE = {"sep3": 3, "sep5": 5, "sep7": 7}
_POOLS = {"avg3": 3, "max3": 3, "max5": 5, "max7": 7}
_PAIRS = {"1x3-3x1": 3, "1x7-7x1": 7}
_CONVS = {"conv1": 1, "conv3": 3}
OPERATIONS = ("skip", *_POOLS, "dil3", *_CONVS, *_PAIRS, *_SEPARABLE)
_USUAL = ("skip", "avg3", "max3", "sep3", "sep5", "sep7")
_KINDS = ("normal", "reduction")
_A = {
    "normal": "0 sep5 1 sep3, 1 sep5 1 sep3, 0 avg3 1 skip, 1 avg3 1 avg3, 0 sep3 0 skip",
    "reduction": "0 sep5 1 sep7, 0 max3 1 sep7, 0 avg3 1 sep5, 3 skip 2 avg3, 2 sep3 0 max3",
}
"""NASNet-A, block by block; 0 is the cell before, 1 the one before that, 2 the first block."""
_A_OUTPUTS = {"normal": (1, 2, 3, 4, 5, 6), "reduction": (3, 4, 5, 6)}
"""What its cells give. By the rule, normal cells would not give their input 1, nor reduction cells block 3."""


class _Map(NamedTuple):
    channels: int
    size: int


class Nasnet(Space):
    """A stem, stages of normal cells with a reduction cell in between, pooling, a classifier.

    A cell has two inputs, the two cells before it, each through a 1x1 convolution. A block adds the results of two
    operations on inputs or earlier blocks; what no block takes is concatenated. The first cell takes the stem as it is
    for the cell before the last. The reference is NASNet-A, where its
    operations and five blocks are on offer; with the stem `imagenet` it has two more reduction cells.

    `skip` is the value itself, `avg3`, `max3`, ... pooling, `conv1` and `conv3` a ReLU, a convolution and a norm,
    `1x3-3x1` and `1x7-7x1` two convolutions, `dil3` a dilated separable convolution, `sep3`, ... a separable
    convolution, twice. In a reduction cell what starts at inputs has stride 2.

    Args:
        preset: `cifar`, or `mobile`: NASNet-A mobile, 4 cells per stage, 44 channels, stem `imagenet`, 1,000 classes,
            size 224. The other settings go before the preset's.
        blocks: Per cell.
        operations: On offer, cheapest first.
        cells: Normal cells per stage.
        stages: With a reduction cell in between, which doubles the channels.
        width: Channels of a block in the first stage.
        stem: `cifar` is a 3x3 convolution of three times the width; `imagenet` one of `stem_width` with stride 2, and
            two reduction cells of a quarter and of half the width.
        stem_width: Channels of the stem `imagenet`.
        outputs: What a cell gives: `unused` by the rule, `nasnet_a` as the published cells do, which also give an input
            and a block that others take.
        size: Height and width of the input.
        classes: Number of outputs.
        in_channels: Channels of the input.

    Raises:
        ConfigError: A setting is out of range, or settings contradict each other.
    """

    input_shape: tuple[int, int, int]

    def __init__(
        self,
        *,
        preset: Literal["cifar", "mobile"] = "cifar",
        blocks: int = 5,
        operations: Sequence[str] = _USUAL,
        cells: int | None = None,
        stages: int = 3,
        width: int | None = None,
        stem: Literal["cifar", "imagenet"] | None = None,
        stem_width: int = 32,
        outputs: Literal["unused", "nasnet_a"] | None = None,
        size: int | None = None,
        classes: int | None = None,
        in_channels: int = 3,
    ) -> None:
        if preset not in ("cifar", "mobile"):
            raise ConfigError(f"preset is {preset!r}; it is cifar or mobile")
        mobile = preset == "mobile"
        self.blocks, self.operations, self.stages, self.stem_width = blocks, tuple(operations), stages, stem_width
        self.cells, self.width = cells or (4 if mobile else 2), width or (44 if mobile else 16)
        self.stem = stem or ("imagenet" if mobile else "cifar")
        self.outputs = outputs or ("nasnet_a" if mobile else "unused")
        self.classes = classes or (1000 if mobile else 10)
        size = size or (224 if mobile else 32)
        self.input_shape = (in_channels, size, size)
        self._check(cells, width, size)
        self.choices = tuple(
            choice
            for kind in _KINDS
            for b in range(blocks)
            for side in ("left", "right")
            for choice in (
                Choice(f"{kind}.block{b + 1}.{side}.input", tuple(range(b + 2))),
                Choice(f"{kind}.block{b + 1}.{side}.operation", self.operations),
            )
        )

    def _check(self, cells: int | None, width: int | None, size: int) -> None:
        given = {"cells": cells, "width": width, "blocks": self.blocks, "stages": self.stages, "classes": self.classes}
        given |= {"stem_width": self.stem_width, "in_channels": self.input_shape[0]}
        for name, value in given.items():
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1; got {value}")
        unknown = [o for o in self.operations if o not in OPERATIONS]
        if unknown or len(set(self.operations)) < len(self.operations) or not self.operations:
            raise ConfigError(
                f"operations are different ones of {', '.join(OPERATIONS)}; got {', '.join(self.operations) or 'none'}"
            )
        if self.stem not in ("cifar", "imagenet") or self.outputs not in ("unused", "nasnet_a"):
            raise ConfigError(
                f"stem is {self.stem!r} and outputs is {self.outputs!r}; they are cifar or imagenet, and unused or "
                "nasnet_a"
            )
        if self.outputs == "nasnet_a" and self.blocks != 5:
            raise ConfigError(f"outputs = 'nasnet_a' are those of cells of 5 blocks; blocks is {self.blocks}")
        least = 2**self.stages * (8 if self.stem == "imagenet" else 1)
        if size < least:
            raise ConfigError(f"size {size} is too small for {self.stages} stages; it must be at least {least}")
        if self.stem == "imagenet" and self.width < 8:
            raise ConfigError(f"the stem's cells have a quarter of the width, {self.width}; it must be at least 8")

    @property
    def reference(self) -> Arch:
        if self.blocks == 5 and set(" ".join(_A.values()).replace(",", "").split()[1::2]) <= set(self.operations):
            return self.canonical(tuple(a for kind in _KINDS for a in self._coded(_A[kind])))
        last = len(self.operations) - 1
        return self.canonical((0, last, 1, last) * (2 * self.blocks))

    def canonical(self, arch: Arch) -> Arch:
        """Sums have no order: the smaller input, then operation, comes first."""
        halves = [arch[i : i + 4] for i in range(0, len(arch), 4)]
        return tuple(a for h in halves for pair in sorted([h[:2], h[2:]]) for a in pair)

    def build(self, arch: Arch) -> nn.Module:
        codes = {kind: self._code(arch, i) for i, kind in enumerate(_KINDS)}
        return fx.symbolic_trace(_Network(self, codes))  # a graph of torch's own modules only

    def _coded(self, words: str) -> list[int]:
        found = []
        for block in words.split(", "):
            a, left, b, right = block.split(" ")
            found += [int(a), self.operations.index(left), int(b), self.operations.index(right)]
        return found

    def _code(self, arch: Arch, kind: int) -> _Code:
        part = arch[kind * 4 * self.blocks : (kind + 1) * 4 * self.blocks]
        names = [self.operations[a] for a in part[1::2]]
        inputs = part[::2]
        published = _A_OUTPUTS[_KINDS[kind]] if self.outputs == "nasnet_a" else ()
        outputs = published or tuple(s for s in range(self.blocks + 2) if s not in inputs)
        return _Code(inputs, tuple(names), outputs)


class _Code(NamedTuple):
    """A cell: per half of a block, its input and operation; and what the cell gives."""

    inputs: tuple[int, ...]
    names: tuple[str, ...]
    outputs: tuple[int, ...]


def _convs(*convs: nn.Conv2d) -> list[nn.Module]:
    """A ReLU before, a norm behind."""
    return [nn.ReLU(), *convs, nn.BatchNorm2d(convs[-1].out_channels)]


def _deep(x: int, y: int, kernel: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    deep = nn.Conv2d(x, x, kernel, stride, padding, dilation, groups=x, bias=False)
    return _convs(deep, nn.Conv2d(x, y, 1, bias=False))


def _operation(name: str, x: int, y: int, stride: int) -> nn.Module:
    """From `x` channels to `y`."""
    if name in _SEPARABLE:
        return nn.Sequential(*_deep(x, y, _SEPARABLE[name], stride), *_deep(y, y, _SEPARABLE[name], 1))
    if name in _PAIRS:
        k = _PAIRS[name]
        wide = nn.Conv2d(x, y, (1, k), (1, stride), (0, k // 2), bias=False)
        return nn.Sequential(*_convs(wide), *_convs(nn.Conv2d(y, y, (k, 1), (stride, 1), (k // 2, 0), bias=False)))
    if name == "dil3":
        return nn.Sequential(*_deep(x, y, 3, stride, 2))
    if name in _CONVS:
        return relu_conv_norm(x, y, _CONVS[name], stride)
    if name == "skip":
        return nn.Identity() if stride == 1 and x == y else relu_conv_norm(x, y, 1, stride)
    kernel = _POOLS[name]
    pool = nn.MaxPool2d(kernel, stride, kernel // 2) if name[:3] == "max" else _average(kernel, stride)
    return pool if x == y else nn.Sequential(pool, nn.Conv2d(x, y, 1, bias=False), nn.BatchNorm2d(y))


def _average(kernel: int, stride: int) -> nn.Module:
    return nn.AvgPool2d(kernel, stride, kernel // 2, count_include_pad=False)


def _adapted(x: _Map, y: _Map) -> nn.Module:
    """What makes one feature map like another."""
    if x.size != y.size:
        return Factorised(x.channels, y.channels)
    return nn.Identity() if x.channels == y.channels else relu_conv_norm(x.channels, y.channels, 1)


class _Cell(nn.Module):
    """A normal cell, or with a stride of 2 a reduction cell.

    Args:
        code: What it computes.
        before: What comes from the cell before the last; None: there is none, and the stem enters twice.
        current: What comes from the last cell.
        width: Channels of a block.
        stride: Of what starts at inputs.
    """

    def __init__(self, code: _Code, before: _Map | None, current: _Map, width: int, stride: int) -> None:
        super().__init__()
        self.code, x = code, _Map(width, current.size)
        self.current = relu_conv_norm(current.channels, width, 1)
        self.before = nn.Identity() if before is None else _adapted(before, x)  # the stem, as it is
        widths = (width, current.channels if before is None else width)
        self.operations = nn.ModuleList(
            _operation(name, widths[s], width, stride) if s < 2 else _operation(name, width, width, 1)
            for name, s in zip(code.names, code.inputs, strict=True)
        )
        y = _Map(width, halved(current.size) if stride == 2 else current.size)
        self.given = nn.ModuleDict({str(o): _adapted(_Map(widths[o], x.size), y) for o in code.outputs if o < 2})
        self.out = _Map(width * len(code.outputs), y.size)

    def forward(self, before: Tensor, current: Tensor) -> Tensor:
        states = [self.current(current), self.before(before)]
        halves = list(zip(self.operations, self.code.inputs, strict=True))
        for (left, a), (right, b) in zip(halves[::2], halves[1::2], strict=True):
            states.append(left(states[a]) + right(states[b]))
        return torch.cat([self.given[str(o)](states[o]) if o < 2 else states[o] for o in self.code.outputs], 1)


class _Network(nn.Module):
    def __init__(self, space: Nasnet, codes: dict[str, _Code]) -> None:
        super().__init__()
        channels, size, _ = space.input_shape
        imagenet = space.stem == "imagenet"
        first = space.stem_width if imagenet else 3 * space.width
        conv = nn.Conv2d(channels, first, 3, 2 if imagenet else 1, 0 if imagenet else 1, bias=False)
        self.conv = nn.Sequential(conv, nn.BatchNorm2d(first))
        last = _Map(first, (size - 3) // 2 + 1 if imagenet else size)
        plan = [("reduction", space.width // 4), ("reduction", space.width // 2)] if imagenet else []
        for stage in range(space.stages):
            width = space.width * 2**stage
            plan += [("reduction", width)] * (stage > 0) + [("normal", width)] * space.cells
        self.cells = nn.ModuleList()
        recent: tuple[_Map | None, _Map] = (None, last)
        for kind, width in plan:
            cell = _Cell(codes[kind], *recent, width, 2 if kind == "reduction" else 1)
            self.cells.append(cell)
            recent = (recent[1], cell.out)
        self.relu, self.pool = nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(recent[1].channels, space.classes)

    def forward(self, x: Tensor) -> Tensor:
        before = current = self.conv(x)
        for cell in self.cells:
            before, current = current, cell(before, current)
        return cast(Tensor, self.classifier(self.pool(self.relu(current)).flatten(1)))

"""Residual networks of basic blocks with a choice of width per stage and per block.

Source: He et al., "Deep residual learning for image recognition" (2016), with the small-image variant of its section
4.2. The blocks of a stage are joined by sums, so they share one residual width (and the stem that of the first stage);
the width inside a block is free.
Deviation: a parameter-free shortcut appends its zero channels at the end, so that narrow networks are slices of wide
ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.functional import pad, relu

from sartor.core import trees
from sartor.core.abilities import Scalable
from sartor.core.contracts import Space, Supernet
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Axis, Choice, Layer
from sartor.core.trees import Inputs
from sartor.spaces._options import MULTIPLIERS, nearest, width_options
from sartor.supernet.elastic import ELASTIC, PLAIN, Kit, inherit
from sartor.supernet.gates import Cut, cut

__all__ = ["ResnetWidths"]


class ResnetWidths(Space, Scalable):
    """A stem, stages of basic blocks (each but the first halves the size), global average pooling and a classifier.

    Args:
        blocks: Blocks per stage: (3, 3, 3) is ResNet-20, (5, 5, 5) ResNet-32; (2, 2, 2, 2) with four widths ResNet-18.
        widths: Base width of every stage.
        classes: Number of outputs.
        size: Height and width of the input.
        stem: `small`, a 3x3 convolution; `imagenet`, a 7x7 one with stride 2 and max pooling, which divide by 4.
        shortcut: Where the size changes: `projection` (1x1 convolution) or `pad` (zero channels, no parameters).
        multipliers: The widths on offer, as fractions of the base width.
        divisor: Widths are rounded to multiples of this.
        in_channels: Channels of the input.
    """

    input_shape: tuple[int, int, int]

    def __init__(
        self,
        *,
        blocks: Sequence[int] = (3, 3, 3),
        widths: Sequence[int] = (16, 32, 64),
        classes: int = 10,
        size: int = 32,
        stem: Literal["small", "imagenet"] = "small",
        shortcut: Literal["projection", "pad"] = "projection",
        multipliers: Sequence[float] = MULTIPLIERS,
        divisor: int = 4,
        in_channels: int = 3,
    ) -> None:
        if len(blocks) != len(widths) or not blocks or min(blocks) < 1:
            raise ConfigError(f"blocks and widths need one positive number per stage; got {blocks} and {widths}")
        if stem not in ("small", "imagenet") or shortcut not in ("projection", "pad"):
            raise ConfigError(
                f"stem is small or imagenet and shortcut is projection or pad; got {stem!r} and {shortcut!r}"
            )
        self.input_shape = (in_channels, size, size)
        self._plan = _Plan(in_channels, classes, stem == "imagenet", shortcut == "pad")
        choices: list[Choice] = []
        self._base: list[float] = []
        self._stages: list[_Stage] = []
        for s, (count, base) in enumerate(zip(blocks, widths, strict=True), 1):
            names = [f"layer{s}", *(f"layer{s}.{b}" for b in range(count))]
            first = len(choices)
            self._stages.append(_Stage(first, tuple(range(first + 1, first + 1 + count))))
            choices += [Choice(name, width_options(base, multipliers, divisor), ordered=True) for name in names]
            self._base += [base] * len(names)
        self.choices = tuple(choices)

    @property
    def reference(self) -> Arch:
        """The base widths (the nearest on offer)."""
        return nearest(self.choices, self._base)

    def scaled(self, factor: float) -> Arch:
        widths = [c.options[a] for c, a in zip(self.choices, self.reference, strict=True)]
        return nearest(self.choices, [factor * float(w) for w in widths])

    def build(self, arch: Arch) -> nn.Module:
        widths = [int(c.options[a]) for c, a in zip(self.choices, arch, strict=True)]
        # Tracing leaves a graph of torch's own modules; none of the classes below is in the result.
        return fx.symbolic_trace(_Resnet(self._plan, [s.pick(widths) for s in self._stages], PLAIN))

    def supernet(self) -> Supernet:
        return _ResnetSupernet(self, self._plan, self._stages)

    def layers(self) -> Sequence[Layer]:
        return tuple(self._layers())

    def _layers(self) -> Iterator[Layer]:
        axes = [Axis(tuple(int(w) for w in c.options), i) for i, c in enumerate(self.choices)]
        size, x = self.input_shape[1:], axes[0]
        kernel, stride = (7, 2) if self._plan.imagenet else (3, 1)
        yield (layer := Layer("conv1", "conv", size, kernel, stride, False, Axis((self._plan.in_channels,)), x))
        size = _after(layer)
        if self._plan.imagenet:
            yield (layer := Layer("maxpool", "pool", size, 3, 2, False, x, x))
            size = _after(layer)
        for s, stage in enumerate(self._stages):
            width, inner = axes[stage.width], [axes[i] for i in stage.inner]
            for b, middle in enumerate(inner):
                layers = _block_layers(
                    f"layer{s + 1}.{b}", size, 2 if s and not b else 1, (x, middle, width), self._plan
                )
                yield from layers
                size, x = _after(layers[-1]), width
        yield Layer("linear", "linear", (1, 1), 1, 1, True, x, Axis((self._plan.classes,)))


class _Plan(NamedTuple):
    in_channels: int
    classes: int
    imagenet: bool
    pad: bool


class _Stage(NamedTuple):
    """The residual width of a stage and the inner widths of its blocks, or the indices of their choices."""

    width: int
    inner: tuple[int, ...]

    def pick(self, values: Sequence[int]) -> _Stage:
        return _Stage(values[self.width], tuple(values[i] for i in self.inner))


def _after(layer: Layer) -> tuple[int, int]:
    return layer.sized(1, 1).out_size


def _block_layers(
    name: str, size: tuple[int, int], stride: int, axes: tuple[Axis, Axis, Axis], plan: _Plan
) -> list[Layer]:
    x, middle, out = axes
    first = Layer(f"{name}.conv1", "conv", size, 3, stride, False, x, middle)
    small = _after(first)
    layers = [first, Layer(f"{name}.conv2", "conv", small, 3, 1, False, middle, out, ((x, size),))]
    if stride > 1:
        kind = "pad" if plan.pad else "conv"
        layers.append(Layer(f"{name}.shortcut", kind, size, 1, stride, False, x, out, ((out, small),)))
    return [*layers, Layer(f"{name}.add", "add", small, 1, 1, False, out, out)]


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, c_in: int, inner: int, c_out: int, stride: int, zeros: bool, kit: Kit) -> None:
        super().__init__()
        self.conv1 = kit.conv(c_in, inner, 3, stride, 1, bias=False)
        self.bn1 = kit.norm(inner)
        self.conv2 = kit.conv(inner, c_out, 3, 1, 1, bias=False)
        self.bn2 = kit.norm(c_out)
        self.identity, self.stride, self.c_out = stride == 1, stride, c_out
        if stride > 1 and not zeros:
            self.shortcut = nn.Sequential(kit.conv(c_in, c_out, 1, stride, bias=False), kit.norm(c_out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        if self.identity:
            return relu(y + x)
        skip = self.shortcut(x) if hasattr(self, "shortcut") else _fit(x, self.conv1.in_channels, self.c_out)
        return relu(y + skip)

    def run(self, x: Tensor, inner: Cut, out: Cut) -> Tensor:
        """The same, elastic. Every term of the sum is scaled once by the gates of its channels."""
        y = inner.scale(relu(self.bn1(self.conv1(x, inner), inner)))
        y = out.scale(self.bn2(self.conv2(y, out), out))
        if self.identity:
            return relu(y + x)
        if not hasattr(self, "shortcut"):
            return relu(y + out.scale(_fit(x, x.shape[1], out.width)))
        conv, norm = self.shortcut
        return relu(y + out.scale(norm(conv(x, out), out)))


def _fit(x: Tensor, c_in: int, c_out: int) -> Tensor:
    """Every second pixel of `x`, with channels cut off or zero channels appended."""
    x = x[:, : min(c_in, c_out), ::2, ::2]
    return pad(x, (0, 0, 0, 0, 0, c_out - c_in)) if c_out > c_in else x


class _Resnet(nn.Module):
    def __init__(self, plan: _Plan, stages: Sequence[_Stage], kit: Kit) -> None:
        super().__init__()
        c = stages[0].width
        kernel, stride, margin = (7, 2, 3) if plan.imagenet else (3, 1, 1)
        self.conv1 = kit.conv(plan.in_channels, c, kernel, stride, margin, bias=False)
        self.bn1 = kit.norm(c)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if plan.imagenet else nn.Identity()
        self.depth = len(stages)
        for s, stage in enumerate(stages):
            blocks = []
            for b, inner in enumerate(stage.inner):
                blocks.append(_Block(c, inner, stage.width, 2 if s and not b else 1, plan.pad, kit))
                c = stage.width
            self.add_module(f"layer{s + 1}", nn.Sequential(*blocks))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = kit.linear(c, plan.classes)

    def stage(self, s: int) -> nn.Sequential:
        return cast(nn.Sequential, getattr(self, f"layer{s + 1}"))

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(relu(self.bn1(self.conv1(x))))
        for s in range(self.depth):
            x = self.stage(s)(x)
        return cast(Tensor, self.linear(self.pool(x).flatten(1)))


class _ResnetSupernet(Supernet):
    def __init__(self, space: ResnetWidths, plan: _Plan, stages: Sequence[_Stage]) -> None:
        super().__init__()
        self.space, self.stages = space, stages
        widest = [int(c.options[-1]) for c in space.choices]
        self.network = _Resnet(plan, [s.pick(widest) for s in stages], ELASTIC)

    def forward(self, x: Inputs, gates: Sequence[Tensor]) -> Tensor:
        y = trees.single(x, self)
        cuts = [cut(g, [int(w) for w in c.options]) for g, c in zip(gates, self.space.choices, strict=True)]
        net, stem = self.network, cuts[0]
        y = net.maxpool(stem.scale(relu(net.bn1(net.conv1(y, stem), stem))))
        for s, stage in enumerate(self.stages):
            for block, i in zip(net.stage(s), stage.inner, strict=True):
                y = cast(_Block, block).run(y, cuts[i], cuts[stage.width])
        return cast(Tensor, net.linear(net.pool(y).flatten(1)))

    def extract(self, arch: Arch) -> nn.Module:
        with torch.device("meta"):
            narrow = self.space.build(arch)
        return inherit(narrow, self.network)

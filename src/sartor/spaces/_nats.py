"""What the two spaces of NATS-Bench share: the macro network around the cells, and the costs of its layers.

Source: Dong et al., "NATS-Bench: benchmarking NAS algorithms for architecture topology and size" (TPAMI 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from sartor.core.errors import ConfigError
from sartor.core.records import Axis, Choice, Layer, LayerKey
from sartor.core.tables import Tables
from sartor.spaces._graph import edges_of, sums

EDGES = edges_of(1, 3)
"""Node before, node after, in the order of the names of cells."""
NONE, SKIP, POOL = "none", "skip_connect", "avg_pool_3x3"
KERNELS = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}


def check(classes: int, size: int, in_channels: int) -> None:
    """Settings that both spaces have.

    Raises:
        ConfigError: One is out of range.
    """
    if min(classes, in_channels) < 1 or size < 4:
        raise ConfigError(
            f"classes and in_channels must be at least 1 and size at least 4; got {classes}, {in_channels} and {size}"
        )


def relu_conv_norm(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Module:
    """ReLU, convolution, norm; wrapped so that names of weights are those of published networks."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
    return Op(nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(c_out)))


class Op(nn.Module):
    """A sequence; its weights are called `op.0.weight`, as published."""

    def __init__(self, op: nn.Sequential) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.op(x))


class _Widen(nn.Module):
    """What a skip connection is where the widths differ: a 1x1 convolution with a norm."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.bn(self.conv(x)))


def operation(name: str, c_in: int, c_out: int) -> nn.Module:
    """What an edge runs; for no operation the identity, which is not to be run."""
    if name in KERNELS:
        return relu_conv_norm(c_in, c_out, KERNELS[name])
    if name == POOL:
        return nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    return nn.Identity() if c_in == c_out else _Widen(c_in, c_out)


class Cell(nn.Module):
    """Three nodes after the input, each the sum of one operation on every node before it.

    Args:
        operations: Of the six edges, in the order of `EDGES`.
        c_in: Channels of the input.
        c_out: Channels of the three nodes.
    """

    def __init__(self, operations: Sequence[str], c_in: int, c_out: int) -> None:
        super().__init__()
        self.operations = tuple(operations)
        self.layers = nn.ModuleList(
            operation(name, c_in if source == 0 else c_out, c_out)
            for name, (source, _) in zip(operations, EDGES, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        return sums([x], EDGES, lambda e, y: None if self.operations[e] == NONE else self.layers[e](y))[-1]


class Reduction(nn.Module):
    """A residual block that halves the size."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv_a = relu_conv_norm(c_in, c_out, 3, 2)
        self.conv_b = relu_conv_norm(c_out, c_out, 3)
        # Odd sizes are rounded up, as the convolution beside it rounds them.
        self.downsample = nn.Sequential(
            nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), nn.Conv2d(c_in, c_out, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv_b(self.conv_a(x)) + self.downsample(x))


class Network(nn.Module):
    """A 3x3 convolution, cells, a residual block with stride 2, cells, another, cells, pooling and a classifier.

    Args:
        in_channels: Channels of the input.
        classes: Number of outputs.
        widths: Channels after the stem and after every cell and residual block.
        reductions: Which of these are residual blocks.
        cell: Makes a cell of its channels before and after.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        widths: Sequence[int],
        reductions: Sequence[int],
        cell: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_channels, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]))
        self.cells = nn.Sequential()
        for i, (a, b) in enumerate(pairwise(widths), 1):
            self.cells.append(Reduction(a, b) if i in reductions else cell(a, b))
        self.lastact = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU())
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(self.stem(x)))

    def head(self, x: Tensor) -> Tensor:
        """What is behind the cells."""
        return cast(Tensor, self.classifier(self.global_pooling(self.lastact(x)).flatten(1)))


def stem_layer(size: int, in_channels: int, out: Axis) -> Layer:
    """The first layer."""
    return Layer("stem", "conv", (size, size), 3, 1, False, Axis((in_channels,)), out)


def reduction_layers(name: str, size: int, x: Axis, out: Axis) -> Iterator[Layer]:
    """The layers of a residual block that halves the size."""
    whole, half = (size, size), (halved(size), halved(size))
    yield Layer(f"{name}.conv_a", "conv", whole, 3, 2, False, x, out)
    yield Layer(f"{name}.conv_b", "conv", half, 3, 1, False, out, out, ((x, whole),))
    yield Layer(f"{name}.pool", "pool", whole, 2, 2, False, x, x, ((out, half),))
    yield Layer(f"{name}.shortcut", "shortcut", half, 1, 1, False, x, out, ((out, half),))


def classifier_layer(x: Axis, classes: int) -> Layer:
    """The last layer; the norm in front of it is counted with it."""
    return Layer("classifier", "linear", (1, 1), 1, 1, True, x, Axis((classes,)))


def halved(size: int) -> int:
    """The size after a stride of 2."""
    return -(-size // 2)


def macs(key: LayerKey) -> float:
    """The benchmark's FLOPs: multiply-adds, and the additions of the classifier's bias.

    Nothing is counted for norms, pooling and sums.
    """
    bias = key.c_out if key.kind == "linear" else 0
    return _connections(key) * key.out_size[0] * key.out_size[1] + bias


def params(key: LayerKey) -> float:
    """Weights, and two numbers per channel of a norm: behind a convolution, and in front of the classifier."""
    weights = _connections(key)
    if key.kind == "linear":
        return weights + key.c_out + 2 * key.c_in
    return weights + (2 * key.c_out if weights and key.kind != "shortcut" else 0)


def _connections(key: LayerKey) -> float:
    if key.kind == "pool" or (key.kind == "skip" and key.c_in == key.c_out):
        return 0
    return key.taps * key.c_in * key.c_out


def alive(choices: Sequence[Choice], *maps: tuple[Axis, int]) -> Tables:
    """The values of feature maps, given as channels and side, that are there at once; one term where that can be."""
    unary, constant = list(Tables.zeros(choices).unary), 0.0
    for axis, side in maps:
        values = torch.tensor(axis.sizes, dtype=torch.float64) * side**2
        if axis.choice is None:
            constant += float(values)
        else:
            unary[axis.choice] = unary[axis.choice] + values
    used = sorted({axis.choice for axis, _ in maps if axis.choice is not None})
    if len(used) == 1:
        unary[used[0]], constant = unary[used[0]] + constant, 0.0
    if len(used) != 2:
        return Tables(tuple(unary), {}, constant)
    i, j = used
    return Tables(Tables.zeros(choices).unary, {(i, j): unary[i][:, None] + unary[j] + constant})


def reduction_steps(choices: Sequence[Choice], size: int, x: Axis, out: Axis) -> Iterator[Tables]:
    """The feature maps alive in a residual block that halves the size."""
    half = halved(size)
    yield alive(choices, (x, size), (out, half))
    yield alive(choices, (x, size), (out, half), (out, half))
    yield alive(choices, (x, size), (x, half), (out, half))
    yield alive(choices, (x, half), (out, half), (out, half))

"""Chains of inverted residual blocks, each of an operation of its own: what is fixed, what is on offer, and networks.

Source: Cai, Zhu and Han, "ProxylessNAS" (ICLR 2019), section 4.2, and the names of weights of its published networks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, product
from typing import Literal, NamedTuple, TypeAlias, cast

from torch import Tensor, nn

from sartor.core.errors import ConfigError
from sartor.core.records import Operator, Operators
from sartor.spaces._inverted import Activation, Block, divisible, halved
from sartor.spaces._operators import Catalogue
from sartor.spaces._staged import ACTIVATIONS, Squeeze

Named: TypeAlias = Literal["relu6", "hswish"]
_FULL: dict[Named, Activation] = {"relu6": "relu6", "hswish": "hardswish"}
SKIP = "skip"


class Operation(NamedTuple):
    """What a block does; in the order of what it costs."""

    expansion: float
    kernel: int
    squeeze: bool = False
    activation: Named = "relu6"

    def __str__(self) -> str:
        further = "-se" * self.squeeze + "-hswish" * (self.activation == "hswish")
        return f"k{self.kernel}e{self.expansion:g}{further}"


FIRST = Operation(1, 3)
"""Of the block after the first convolution, which no choice changes."""


@dataclass(frozen=True)
class Menu:
    """What is on offer for a block."""

    kernels: Sequence[int]
    expansions: Sequence[float]
    se: bool
    activations: Sequence[Named]

    def __post_init__(self) -> None:
        if not self.kernels or any(k < 1 or k % 2 == 0 for k in self.kernels):
            raise ConfigError(f"kernels must be odd and positive; got {tuple(self.kernels)}")
        if not self.expansions or min(self.expansions) < 1:
            raise ConfigError(f"expansions must be at least 1; got {tuple(self.expansions)}")
        if not self.activations or set(self.activations) - set(_FULL):
            raise ConfigError(f"activations are {' and '.join(_FULL)}; got {tuple(self.activations)}")

    def operations(self) -> tuple[Operation, ...]:
        """All combinations, cheapest first."""
        squeeze = (False, True) if self.se else (False,)
        activations = [a for a in _FULL if a in self.activations]
        found = product(sorted({*self.expansions}), sorted({*self.kernels}), squeeze, activations)
        return tuple(Operation(float(e), k, s, a) for e, k, s, a in found)


class Slot(NamedTuple):
    """A place for a block.

    Attributes:
        stage: Number of the stage, from 1 on.
        depth: Place in its stage, from 0 on.
        size: Height and width of what enters.
    """

    stage: int
    depth: int
    c_in: int
    c_out: int
    stride: int
    size: int

    @property
    def optional(self) -> bool:
        """Whether there may be no block at all."""
        return self.stride == 1 and self.c_in == self.c_out

    def block(self, operation: Operation) -> Block:
        """The block that does `operation` here."""
        wide = round(self.c_in * operation.expansion)
        squeezed = divisible(wide // 4) if operation.squeeze else 0
        activation = _FULL[operation.activation]
        return Block(self.c_in, wide, self.c_out, operation.kernel, self.stride, squeezed, activation)

    def key(self, operation: Operation) -> str:
        """What published latency tables call the block."""
        after = halved(self.size, self.stride)
        further = "-se:1" * operation.squeeze + "-hs:1" * (operation.activation == "hswish")
        return (
            f"expanded_conv-input:{self.size}x{self.size}x{self.c_in}-output:{after}x{after}x{self.c_out}"
            f"-expand:{operation.expansion:g}-kernel:{operation.kernel}-stride:{self.stride}"
            f"-idskip:{int(self.optional)}{further}"
        )


@dataclass(frozen=True)
class Plan:
    """Everything but the operations; see the settings of the space."""

    in_channels: int
    size: int
    classes: int
    stem: int
    stem_stride: int
    first: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    strides: tuple[int, ...]
    head: int

    def __post_init__(self) -> None:
        if not len(self.widths) == len(self.blocks) == len(self.strides) > 0:
            raise ConfigError(
                "widths, blocks and strides need one number per stage each; "
                f"got {self.widths}, {self.blocks} and {self.strides}"
            )
        for name, value in vars(self).items():
            if min(value if isinstance(value, tuple) else (value,)) < 1:
                raise ConfigError(f"{name} must be at least 1; got {value}")

    def slots(self) -> tuple[Slot, ...]:
        """The fixed block's place (as stage 0), then all others, in order."""
        size, c = halved(self.size, self.stem_stride), self.first
        found = [Slot(0, 0, self.stem, c, 1, size)]
        for stage, (width, count, stride) in enumerate(zip(self.widths, self.blocks, self.strides, strict=True), 1):
            for depth in range(count):
                found.append(Slot(stage, depth, c, width, 1 if depth else stride, size))
                size, c = halved(size, 1 if depth else stride), width
        return tuple(found)

    @property
    def last(self) -> int:
        """Height and width after the last stage."""
        slot = self.slots()[-1]
        return halved(slot.size, slot.stride)


_WIDTHS, _DEPTHS = (24, 40, 80, 96, 192, 320), (4, 4, 4, 4, 4, 1)
PRESETS = {
    "imagenet": Plan(3, 224, 1000, 32, 2, 16, _WIDTHS, _DEPTHS, (2, 2, 2, 1, 2, 1), 1280),
    "cifar": Plan(3, 32, 10, 32, 1, 16, _WIDTHS, _DEPTHS, (1, 2, 2, 1, 2, 1), 1280),
    "small": Plan(1, 32, 10, 16, 1, 8, (16, 24, 40), (2, 3, 3), (1, 2, 2), 160),
}


def conv(
    c_in: int, c_out: int, kernel: int, activation: Activation | None, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution, norm and activation."""
    layers: list[tuple[str, nn.Module]] = [
        ("conv", nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)),
        ("bn", nn.BatchNorm2d(c_out, eps=0.001)),
    ]
    if activation is not None:
        layers.append(("act", ACTIVATIONS[activation]()))
    return nn.Sequential(OrderedDict(layers))


class Residual(nn.Module):
    """An inverted residual block, with its shortcut."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        wide, act = block.wide, block.activation
        layers = OrderedDict[str, nn.Module]()
        if wide != block.c_in:
            layers["inverted_bottleneck"] = conv(block.c_in, wide, 1, act)
        layers["depth_conv"] = conv(wide, wide, block.kernel, act, block.stride, wide)
        if block.squeezed:
            layers["squeeze"] = Squeeze(wide, block.squeezed)
        layers["point_linear"] = conv(wide, block.c_out, 1, None)
        self.mobile_inverted_conv, self.residual = nn.Sequential(layers), block.residual

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.mobile_inverted_conv(x)
        return x + y if self.residual else y


class Classifier(nn.Module):
    """Global pooling and a linear layer."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.pool, self.linear = nn.AdaptiveAvgPool2d(1), nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.linear(self.pool(x).flatten(1)))


class Network(nn.Module):
    """First convolution, the fixed block, `blocks`, last convolution, classifier; weights are called as published."""

    def __init__(self, plan: Plan, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        fixed = Residual(plan.slots()[0].block(FIRST))
        self.first_conv = conv(plan.in_channels, plan.stem, 3, "relu6", plan.stem_stride)
        self.blocks = nn.Sequential(fixed, *blocks)
        self.feature_mix_layer = conv(plan.widths[-1], plan.head, 1, "relu6")
        self.classifier = Classifier(plan.head, plan.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.first_conv(x))
        return cast(Tensor, self.classifier(self.feature_mix_layer(x)))


def operators(plan: Plan, offers: Sequence[Sequence[Operation | None]]) -> tuple[Operators, Catalogue]:
    """What networks run, with `offers` for all places but the fixed block's; and who makes each operator."""
    fixed, *slots = plan.slots()
    catalogue = Catalogue()
    at = catalogue.add

    def block(slot: Slot, operation: Operation) -> Operator:
        return at(slot.key(operation), slot.c_in, slot.size, partial(Residual, slot.block(operation)))

    c, width, size, last = plan.in_channels, plan.widths[-1], plan.size, plan.last
    images, stem = f"{size}x{size}x{c}", f"{fixed.size}x{fixed.size}x{plan.stem}"
    mapped, features = f"{last}x{last}x{width}", f"{last}x{last}x{plan.head}"
    first = partial(conv, c, plan.stem, 3, "relu6", plan.stem_stride)
    mix = partial(conv, width, plan.head, 1, "relu6")
    ends = (
        at(f"Conv-input:{images}-output:{stem}", c, size, first),
        block(fixed, FIRST),
        at(f"Conv_1-input:{mapped}-output:{features}", width, last, mix),
        at(
            f"Logits-input:{features}-output:{plan.classes}",
            plan.head,
            last,
            partial(Classifier, plan.head, plan.classes),
        ),
    )
    options = tuple(
        tuple(() if o is None else (block(slot, o),) for o in offer) for slot, offer in zip(slots, offers, strict=True)
    )
    return Operators(ends, options), catalogue


def runs(slots: Sequence[Slot]) -> Iterator[range]:
    """Places of one shape in a row, where it does not matter which of them have no block."""
    number = accumulate(int(not slot.optional) for slot in slots)
    groups: dict[int, list[int]] = {}
    for i, (slot, group) in enumerate(zip(slots, number, strict=True)):
        if slot.optional:
            groups.setdefault(group, []).append(i)
    return (range(places[0], places[-1] + 1) for places in groups.values())

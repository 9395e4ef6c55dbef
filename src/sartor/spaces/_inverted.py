"""Inverted residual blocks, the stages that they form, and what is on offer for a stage.

Source: Sandler et al., "MobileNetV2" (CVPR 2018); Howard et al., "Searching for MobileNetV3" (ICCV 2019); the choices
per stage are those of Tan et al., "MnasNet" (CVPR 2019).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple, TypeAlias

from sartor.core.errors import ConfigError

Activation: TypeAlias = Literal["relu", "relu6", "hardswish"]


class Option(NamedTuple):
    """What is chosen for a stage; `expansion` is a fraction of the reference's."""

    kernel: int
    expansion: float
    filters: int
    repeats: int

    def __str__(self) -> str:
        return f"k{self.kernel} e{self.expansion:g} c{self.filters} n{self.repeats}"


class Block(NamedTuple):
    """One inverted residual block: 1x1 convolution to `wide` channels, depthwise one, squeeze and excitation, 1x1."""

    c_in: int
    wide: int
    c_out: int
    kernel: int
    stride: int
    squeezed: int
    activation: Activation

    @property
    def residual(self) -> bool:
        """Whether its input is added to its output."""
        return self.stride == 1 and self.c_in == self.c_out

    def macs(self, size: int) -> int:
        """Multiply-adds, for an input of this height and width."""
        before, after = size**2, halved(size, self.stride) ** 2
        expand = self.c_in * self.wide * before if self.wide != self.c_in else 0
        return expand + self.wide * (self.kernel**2 + self.c_out) * after + 2 * self.wide * self.squeezed

    def params(self) -> int:
        """Weights, biases, and scales and shifts of norms."""
        expand = self.wide * (self.c_in + 2) if self.wide != self.c_in else 0
        squeeze = 2 * self.wide * self.squeezed + self.squeezed + self.wide if self.squeezed else 0
        return expand + self.wide * (self.kernel**2 + 2) + squeeze + self.c_out * (self.wide + 2)

    def memory(self, size: int) -> int:
        """Most values alive during one of its convolutions."""
        before, after = size**2, halved(size, self.stride) ** 2
        held, wide = self.c_in * before if self.residual else 0, self.wide * after
        steps = [wide + self.c_out * after + held]
        if self.wide == self.c_in:  # the depthwise convolution takes the input of the block
            steps.append(self.c_in * before + wide)
        else:
            steps += [(self.c_in + self.wide) * before, self.wide * before + wide + held]
        if self.squeezed:
            steps.append(wide + self.wide + self.squeezed + held)
        return max(steps)


@dataclass(frozen=True)
class Stage:
    """Blocks of one resolution, the first of which may halve it; as in the reference network.

    Attributes:
        c_in: Channels before the stage.
        wide: Channels inside each of its blocks.
    """

    c_in: int
    filters: int
    kernel: int
    wide: tuple[int, ...]
    stride: int
    activation: Activation
    squeeze: bool = False

    @property
    def option(self) -> Option:
        """The reference's."""
        return Option(self.kernel, 1.0, self.filters, len(self.wide))

    def block(self, number: int, c_in: int, option: Option) -> Block:
        """A block of the stage; blocks beyond the reference's expand like its last."""
        known = min(number, len(self.wide) - 1)
        base = self.c_in if known == 0 else self.filters
        plain = self.wide[known] == base  # no expansion at all
        wide = c_in if plain else divisible(self.wide[known] * option.expansion * c_in / base)
        squeezed = divisible(wide // 4) if self.squeeze else 0
        stride = self.stride if number == 0 else 1
        return Block(c_in, wide, option.filters, option.kernel, stride, squeezed, self.activation)

    def blocks(self, c_in: int, option: Option) -> Iterator[Block]:
        """All blocks, in order."""
        for number in range(option.repeats):
            yield self.block(number, c_in if number == 0 else option.filters, option)


@dataclass(frozen=True)
class Menu:
    """What is on offer per stage: fractions of the reference's expansions and filters, repeats more or fewer."""

    kernels: Sequence[int]
    expansions: Sequence[float]
    filters: Sequence[float]
    repeats: Sequence[int]

    def __post_init__(self) -> None:
        if any(k < 1 or k % 2 == 0 for k in self.kernels):
            raise ConfigError(f"kernels must be odd and positive; got {tuple(self.kernels)}")
        if min((*self.expansions, *self.filters), default=1) <= 0:
            raise ConfigError(
                f"expansions and filters must be positive; got {tuple(self.expansions)} and {tuple(self.filters)}"
            )

    def options(self, stage: Stage) -> tuple[Option, ...]:
        """The reference's own values are always on offer; cheapest first."""
        plain = all(w == c for w, c in zip(stage.wide, (stage.c_in, *[stage.filters] * len(stage.wide)), strict=False))
        found = product(
            sorted({stage.kernel, *self.kernels}),
            (1.0,) if plain else sorted({1.0, *map(float, self.expansions)}),
            sorted({stage.filters, *(divisible(stage.filters * f) for f in self.filters)}),
            sorted({len(stage.wide), *(max(1, len(stage.wide) + n) for n in self.repeats)}),
        )
        return tuple(sorted(map(Option._make, found), key=lambda o: (_work(stage, o), o)))


def _work(stage: Stage, option: Option) -> int:
    """MACs of the stage behind the reference's, per pixel of a large image."""
    first, *others = stage.blocks(stage.c_in, option)
    return first.macs(64) + sum(block.macs(64 // stage.stride) for block in others)


def divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` that is nearest to `channels`, but never more than a tenth below."""
    found = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return found + divisor if found < 0.9 * channels else found


def halved(size: int, stride: int) -> int:
    """The size after a stride."""
    return -(-size // stride)

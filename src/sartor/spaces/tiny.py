"""A chain of a few small convolutions on small images: runs in milliseconds, for tests and first steps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sartor.core.abilities import Scalable
from sartor.core.contracts import Space, Supernet
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Layer
from sartor.spaces._chain import Chain, ChainSupernet, Unit
from sartor.spaces._options import nearest

__all__ = ["Tiny"]


class Tiny(Space, Scalable):
    """A 3x3 convolution and `depth - 1` separable ones (the first with stride 2), then pooling and a classifier.

    Args:
        classes: Number of outputs.
        size: Height and width of the input.
        in_channels: Channels of the input.
        depth: Number of layers, each with one width choice.
        widths: The widths that every layer can have.
    """

    def __init__(
        self,
        *,
        classes: int = 10,
        size: int = 8,
        in_channels: int = 1,
        depth: int = 3,
        widths: Sequence[int] = (4, 8, 12, 16),
    ) -> None:
        if depth < 1:
            raise ConfigError(f"depth must be at least 1; got {depth}")
        options = tuple(sorted(widths))
        units = [Unit("conv0", "conv", 1, options)]
        units += [Unit(f"separable{i}", "separable", 2 if i == 1 else 1, options) for i in range(1, depth)]
        self._chain = Chain(tuple(units), in_channels, size, classes)
        self.choices = self._chain.choices
        self.input_shape = (in_channels, size, size)

    def build(self, arch: Arch) -> nn.Module:
        return self._chain.build(arch)

    def supernet(self) -> Supernet:
        return ChainSupernet(self._chain)

    def layers(self) -> Sequence[Layer]:
        return self._chain.layers()

    def scaled(self, factor: float) -> Arch:
        return nearest(self.choices, [factor * float(c.options[-1]) for c in self.choices])

"""Five widths of a plain convolutional network for small grey images: 1,024 networks, all trained; the table is here.

`sartor bench digits_widths` needs no file: accuracies on scikit-learn's digits (8 x 8 pixels), training times and
measured latencies ship with the package, made by benchmarks/digits_table.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sartor.core.abilities import Scalable
from sartor.core.contracts import Space, Supernet
from sartor.core.records import Arch, Layer
from sartor.spaces._chain import Chain, ChainSupernet, Unit
from sartor.spaces._options import nearest

__all__ = ["DigitsWidths"]

_WIDTHS = (4, 12, 16, 24)
_STRIDES = (1, 1, 2, 1, 2)


class DigitsWidths(Space, Scalable):
    """Five 3x3 convolutions (the third and the fifth with stride 2), then pooling and a classifier.

    Every convolution has 4, 12, 16 or 24 channels. The table belongs to the defaults.

    Args:
        classes: Number of outputs.
        size: Height and width of the input.
        in_channels: Channels of the input.
    """

    def __init__(self, *, classes: int = 10, size: int = 8, in_channels: int = 1) -> None:
        units = [Unit(f"conv{i}", "conv", stride, _WIDTHS) for i, stride in enumerate(_STRIDES)]
        self._chain = Chain(tuple(units), in_channels, size, classes)
        self.choices = self._chain.choices
        self.input_shape = (in_channels, size, size)
        self._words = tuple(map(str, _WIDTHS))

    def build(self, arch: Arch) -> nn.Module:
        return self._chain.build(arch)

    def supernet(self) -> Supernet:
        return ChainSupernet(self._chain)

    def layers(self) -> Sequence[Layer]:
        return self._chain.layers()

    def key(self, arch: Arch) -> str:
        return ":".join([self._words[a] for a in arch])

    def scaled(self, factor: float) -> Arch:
        return nearest(self.choices, [factor * float(_WIDTHS[-1])] * len(self.choices))

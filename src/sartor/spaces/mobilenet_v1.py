"""MobileNet-v1 with a choice of width for each of its 14 layers.

Source: Howard et al., "MobileNets" (2017) for the network; Berman et al., "AOWS: Adaptive and optimal network width
search with latency constraints" (CVPR 2020) for the widths.
Added here: other input sizes, a stem for small images, slimmer base widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from sartor.core.abilities import Scalable
from sartor.core.contracts import Space, Supernet
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Layer
from sartor.spaces._chain import Chain, ChainSupernet, Unit
from sartor.spaces._options import MULTIPLIERS, nearest, width_options

__all__ = ["MobilenetV1"]

_BASE = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
_STRIDES = {
    "imagenet": (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1),
    "small": (1, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1),
}


class MobilenetV1(Space, Scalable):
    """A 3x3 convolution and 13 separable convolutions, then global average pooling and a linear classifier.

    Args:
        classes: Number of outputs.
        size: Height and width of the input.
        stem: `imagenet` divides the size by 32 (224 -> 7); `small` by 8, keeping it in the first two layers and the
            last two (32 -> 4, 64 -> 8).
        width: Factor on the base widths of all layers: below 1 for a slim network.
        multipliers: The widths on offer, as fractions of a layer's base width.
        divisor: Widths are rounded to multiples of this.
        in_channels: Channels of the input.
        strides: The 14 strides, instead of the stem's.
    """

    def __init__(
        self,
        *,
        classes: int = 1000,
        size: int = 224,
        stem: Literal["imagenet", "small"] = "imagenet",
        width: float = 1.0,
        multipliers: Sequence[float] = MULTIPLIERS,
        divisor: int = 8,
        in_channels: int = 3,
        strides: Sequence[int] | None = None,
    ) -> None:
        if stem not in _STRIDES:
            raise ConfigError(f"stem must be one of {sorted(_STRIDES)}; got {stem!r}")
        steps = _STRIDES[stem] if strides is None else tuple(strides)
        if len(steps) != len(_BASE):
            raise ConfigError(f"strides must have {len(_BASE)} entries, one per layer; got {len(steps)}")
        units = []
        for i, (base, step) in enumerate(zip(_BASE, steps, strict=True)):
            options = width_options(base * width, multipliers, divisor)
            units.append(Unit(f"separable{i}" if i else "conv0", "separable" if i else "conv", step, options))
        self._chain = Chain(tuple(units), in_channels, size, classes)
        self._base = [base * width for base in _BASE]
        self.choices = self._chain.choices
        self.input_shape = (in_channels, size, size)

    @property
    def reference(self) -> Arch:
        """The widths with multiplier 1 (the nearest on offer)."""
        return nearest(self.choices, self._base)

    def build(self, arch: Arch) -> nn.Module:
        return self._chain.build(arch)

    def supernet(self) -> Supernet:
        return ChainSupernet(self._chain)

    def layers(self) -> Sequence[Layer]:
        return self._chain.layers()

    def scaled(self, factor: float) -> Arch:
        widths = [c.options[a] for c, a in zip(self.choices, self.reference, strict=True)]
        return nearest(self.choices, [factor * float(w) for w in widths])

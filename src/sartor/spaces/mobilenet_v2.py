"""MobileNet-v2 with a choice of kernel, expansion, filters and repeats for each of its seven stages.

Source: Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks" (CVPR 2018) for the network; Tan et
al., "MnasNet" (CVPR 2019) for the choices, which Fan et al., "LayerNAS" (2023) search layer by layer. The reference is
the network of torchvision, with its names of weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sartor.core.abilities import Accounted
from sartor.core.contracts import Space
from sartor.core.errors import ConfigError
from sartor.core.records import Arch
from sartor.core.tables import Tables
from sartor.spaces._inverted import Menu, Stage, divisible
from sartor.spaces._staged import Plan, Staged

__all__ = ["MobilenetV2"]

# Expansion, filters, repeats, stride.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class MobilenetV2(Space, Accounted):
    """A 3x3 convolution with stride 2, seven stages of inverted residual blocks, a 1x1 convolution, a classifier.

    Each stage is one choice, whose options are called `k5 e0.5 c32 n3`: kernel 5, half the expansion, 32 filters, 3
    repeats. The reference's own values are always on offer.

    Args:
        classes: Number of outputs.
        size: Height and width of the input.
        width: Factor on the filters of all layers: below 1 for a slim network.
        in_channels: Channels of the input.
        kernels: Sides of the depthwise convolutions.
        expansions: Channels inside the blocks, as fractions of the reference's.
        filters: Channels after the blocks, as fractions of the reference's.
        repeats: Blocks more than the reference's, or fewer (there is always one).
    """

    def __init__(
        self,
        *,
        classes: int = 1000,
        size: int = 224,
        width: float = 1.0,
        in_channels: int = 3,
        kernels: Sequence[int] = (3, 5, 7),
        expansions: Sequence[float] = (0.5, 1.0),
        filters: Sequence[float] = (0.75, 1.0, 1.25),
        repeats: Sequence[int] = (-1, 0, 1),
    ) -> None:
        if width <= 0:
            raise ConfigError(f"width must be positive; got {width}")
        stem = c = divisible(32 * width)
        stages = list[Stage]()
        for expansion, base, count, stride in _STAGES:
            after = divisible(base * width)
            wide = (c * expansion, *[after * expansion] * (count - 1))
            stages.append(Stage(c, after, 3, wide, stride, "relu6"))
            c = after
        last = divisible(1280 * max(1.0, width))
        plan = Plan(
            in_channels, classes, size, stem, tuple(stages), lambda _: last, 0, "relu6", "conv", False, nn.BatchNorm2d
        )
        self._staged = Staged(plan, Menu(kernels, expansions, filters, repeats))
        self.choices = self._staged.choices
        self.input_shape = (in_channels, size, size)

    @property
    def reference(self) -> Arch:
        return self._staged.reference

    def build(self, arch: Arch) -> nn.Module:
        return self._staged.build(arch)

    def account(self, metric: str) -> Tables | None:
        return self._staged.account(metric)

    def steps(self) -> Sequence[Tables]:
        return self._staged.steps()

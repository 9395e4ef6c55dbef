"""What both networks of MobileNet-v3 share: a choice of kernel, expansion, filters and repeats for each stage.

Source: Howard et al., "Searching for MobileNetV3" (ICCV 2019) for the networks; Tan et al., "MnasNet" (CVPR 2019) for
the choices, which Fan et al., "LayerNAS" (2023) search layer by layer. The reference is the network of torchvision,
with its names of weights.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import nn

from sartor.core.abilities import Accounted
from sartor.core.contracts import Space
from sartor.core.records import Arch
from sartor.core.tables import Tables
from sartor.spaces._inverted import Menu
from sartor.spaces._staged import Bottleneck, Staged, version_3


class MobilenetV3(Space, Accounted):
    """A 3x3 convolution with stride 2, stages of inverted residual blocks, a 1x1 convolution, two linear layers.

    Each stage is one choice, whose options are called `k5 e0.5 c40 n3`: kernel 5, half the expansion, 40 filters, 3
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
        plan = version_3(in_channels, classes, size, width, self.stages, self.head)
        self._staged = Staged(plan, Menu(kernels, expansions, filters, repeats))
        self.choices = self._staged.choices
        self.input_shape = (in_channels, size, size)

    @property
    @abstractmethod
    def stages(self) -> Sequence[Bottleneck]:
        """Their blocks in the reference."""

    @property
    @abstractmethod
    def head(self) -> int:
        """Outputs of the first linear layer."""

    @property
    def reference(self) -> Arch:
        return self._staged.reference

    def build(self, arch: Arch) -> nn.Module:
        return self._staged.build(arch)

    def account(self, metric: str) -> Tables | None:
        return self._staged.account(metric)

    def steps(self) -> Sequence[Tables]:
        return self._staged.steps()

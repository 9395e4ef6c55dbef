"""Multiply-adds of the convolutions and linear layers, for one input; nothing for normalisation and activations."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sartor.core.contracts import CostModel, Space
from sartor.core.records import Arch, LayerKey
from sartor.core.tables import Tables
from sartor.costs._counting import counted, one_example, tabulate
from sartor.networks import Shapes, macs_params

__all__ = ["Macs"]


def _conv(key: LayerKey) -> float:
    height, width = key.out_size
    return height * width * key.taps * key.c_in * key.c_out


def _depthwise(key: LayerKey) -> float:
    height, width = key.out_size
    return height * width * key.taps * key.c_out


def _separable(key: LayerKey) -> float:
    height, width = key.out_size
    return height * width * key.c_in * (key.taps + key.c_out)


def _none(_key: LayerKey) -> float:
    return 0


_VALUES = {
    "conv": _conv,
    "depthwise": _depthwise,
    "separable": _separable,
    "linear": _conv,
    "pool": _none,
    "pad": _none,
    "add": _none,
}


class Macs(CostModel):
    """Exact tables for spaces that list their layers; any other network is counted while it runs.

    Args:
        space: Whose networks are counted.
        input_shape: Shape of one input without the batch, or of several, for spaces that do not say it.
    """

    metric = "macs"

    def __init__(self, space: Space, *, input_shape: Shapes | None = None) -> None:
        self._space, self._shape = space, input_shape
        self._cost = tabulate(space, _VALUES, self.metric) or counted(space, self.metric, self._count)

    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        return self._cost(archs)

    def terms(self) -> Sequence[Tables]:
        return (self._cost,) if isinstance(self._cost, Tables) else ()

    def _count(self, module: nn.Module) -> float:
        return macs_params(module, one_example(self._space, self._shape, module, self))[0]

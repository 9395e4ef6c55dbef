"""Number of trainable parameters, those of normalisations included."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sartor.core.contracts import CostModel, Space
from sartor.core.records import Arch, LayerKey
from sartor.core.tables import Tables
from sartor.costs._counting import counted, tabulate

__all__ = ["Params"]


def _conv(key: LayerKey) -> float:
    return key.c_out * (key.taps * key.c_in + _after(key))


def _depthwise(key: LayerKey) -> float:
    return key.c_out * (key.taps + _after(key))


def _separable(key: LayerKey) -> float:
    return key.c_in * (key.taps + _after(key)) + key.c_out * (key.c_in + _after(key))


def _after(key: LayerKey) -> int:
    return 1 if key.bias else 2  # a convolution without bias has a norm (scale and shift) behind it


def _linear(key: LayerKey) -> float:
    return key.c_out * (key.c_in + key.bias)


def _none(_key: LayerKey) -> float:
    return 0


_VALUES = {
    "conv": _conv,
    "depthwise": _depthwise,
    "separable": _separable,
    "linear": _linear,
    "pool": _none,
    "pad": _none,
    "add": _none,
}


class Params(CostModel):
    """Exact tables for spaces that list their layers; any other network is built and counted.

    Args:
        space: Whose networks are counted.
    """

    metric = "params"

    def __init__(self, space: Space) -> None:
        self._cost = tabulate(space, _VALUES, self.metric) or counted(space, self.metric, _count)

    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        return self._cost(archs)

    def terms(self) -> Sequence[Tables]:
        return (self._cost,) if isinstance(self._cost, Tables) else ()


def _count(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters())

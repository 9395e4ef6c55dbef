"""Peak memory of the activations for one input: the step with the largest input, output and held feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from sartor.core.abilities import Accounted, Layered
from sartor.core.contracts import CostModel, Space
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Choice, Layer, LayerKey
from sartor.core.tables import Tables
from sartor.costs._counting import counted, covers, observe, one_example
from sartor.networks import Shapes

__all__ = ["Memory"]


def _conv(key: LayerKey) -> float:
    return key.c_in * _area(key.in_size) + key.c_out * _area(key.out_size)


def _separable(key: LayerKey) -> float:
    after = _area(key.out_size)
    return max(key.c_in * (_area(key.in_size) + after), (key.c_in + key.c_out) * after)


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


_VALUES = {
    "conv": _conv,
    "depthwise": _conv,
    "separable": _separable,
    "linear": _conv,
    "pool": _conv,
    "pad": _conv,
    "add": _conv,  # a sum overwrites one of its two terms: as much as one input and one output
}


class Memory(CostModel):
    """Values alive during a convolution or linear layer, in bytes.

    Norms and activations are taken to work in place, as a runtime that fuses them does. A space that lists its layers
    gets exact tables, with the feature maps that wait for a residual sum. Any other network is counted while it runs,
    where held feature maps are not seen: the figure is then a lower bound for networks with branches.

    Args:
        space: Whose networks are measured.
        bytes_per_value: 4 for float32, 2 for half precision, 1 for 8-bit integers.
        input_shape: Shape of one input without the batch, or of several, for spaces that do not say it.
    """

    metric = "memory_bytes"

    def __init__(self, space: Space, *, bytes_per_value: int = 4, input_shape: Shapes | None = None) -> None:
        if bytes_per_value < 1:
            raise ConfigError(f"bytes_per_value must be at least 1; got {bytes_per_value}")
        self._space, self._shape, self._bytes = space, input_shape, bytes_per_value
        self._steps: tuple[Tables, ...] = ()
        self._counted = counted(space, "values", self._count, bytes_per_value)
        if isinstance(space, Accounted):
            self._steps = tuple(step * bytes_per_value for step in space.steps())
        elif isinstance(space, Layered) and covers(space, _VALUES):
            self._steps = tuple(_peak(space.choices, layer) * bytes_per_value for layer in space.layers())

    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        if not self._steps:
            return self._counted(archs)
        return torch.stack([step(archs) for step in self._steps]).amax(0)

    def terms(self) -> Sequence[Tables]:
        return self._steps

    def _count(self, module: nn.Module) -> float:
        uses = observe(module, one_example(self._space, self._shape, module, self))
        return self._bytes * max((use.before.numel() + use.after.numel() for use in uses), default=0)


def _peak(choices: Sequence[Choice], layer: Layer) -> Tables:
    """The values alive during one layer; a single term, unless held feature maps bring in a third choice."""
    tables = Tables.of_layers(choices, [layer], lambda key: _VALUES[key.kind](key))
    unary, constant = list(tables.unary), tables.constant
    for axis, size in layer.held:
        held = torch.tensor(axis.sizes, dtype=torch.float64) * _area(size)
        if axis.choice is None:
            constant += float(held)
        else:
            unary[axis.choice] = unary[axis.choice] + held
    pairwise = {}
    for (i, j), table in tables.pairwise.items():  # at most one
        pairwise[i, j] = table + unary[i][:, None] + unary[j] + constant
        unary[i], unary[j], constant = torch.zeros_like(unary[i]), torch.zeros_like(unary[j]), 0.0
    return replace(tables, unary=tuple(unary), pairwise=pairwise, constant=constant)

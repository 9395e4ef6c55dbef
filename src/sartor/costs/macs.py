"""Multiply-adds with weights, for one input: of convolutions, of linear and recurrent layers, of weight matrices."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sartor.core.contracts import CostModel, Space
from sartor.core.errors import BudgetError
from sartor.core.records import Arch, LayerKey
from sartor.core.tables import Tables
from sartor.costs._counting import counted, one_example, reference_count, tabulate
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

_BLIND = 0.02
"""The largest share of the parameters whose work may be unknown where MACs are to be kept under a limit."""


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

    def check(self) -> None:
        found = reference_count(self._space, self._shape, self)
        blind = () if found is None else found.blind
        missed = sum(layer.params for layer in blind)
        if found is None or missed <= _BLIND * found.params:
            return
        names = ", ".join(f"{layer.layer or 'the network itself'} ({layer.operator})" for layer in blind[:3])
        more = f" and {len(blind) - 3} more" if len(blind) > 3 else ""
        share = (
            f"{missed:,} of {found.params:,} parameters ({missed / found.params:.1%}; at most {_BLIND:.0%} may be so)"
        )
        raise BudgetError(
            f"no budget on MACs here: nobody knows those of {names}{more}, which have {share}; "
            "set a budget on latency_ms or params instead"
        )

    def terms(self) -> Sequence[Tables]:
        return (self._cost,) if isinstance(self._cost, Tables) else ()

    def _count(self, module: nn.Module) -> float:
        return macs_params(module, one_example(self._space, self._shape, module, self))[0]

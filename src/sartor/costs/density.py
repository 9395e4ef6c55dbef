"""Edges over nodes of a block's graph, for spaces that tell: what BlockQNN's reward takes off."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sartor.core.contracts import CostModel, Space
from sartor.core.records import Arch
from sartor.costs._counting import told

__all__ = ["Density"]


class Density(CostModel):
    """As the space counts them.

    Args:
        space: Whose networks are counted; `blocks`, say.

    Raises:
        ConfigError: The space does not tell.
    """

    metric = "density"

    def __init__(self, space: Space) -> None:
        self._cost = told(space, self.metric)

    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        return self._cost(archs)

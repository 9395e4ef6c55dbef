"""Edges of a block's graph, for spaces that tell: a layer has one per layer that it takes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sartor.core.contracts import CostModel, Space
from sartor.core.records import Arch
from sartor.costs._counting import told

__all__ = ["Edges"]


class Edges(CostModel):
    """As the space counts them.

    Args:
        space: Whose networks are counted; `blocks`, say.

    Raises:
        ConfigError: The space does not tell.
    """

    metric = "edges"

    def __init__(self, space: Space) -> None:
        self._cost = told(space, self.metric)

    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        return self._cost(archs)

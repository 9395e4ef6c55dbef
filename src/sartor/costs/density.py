"""Edges over nodes of a block's graph, for spaces that tell: what BlockQNN's reward takes off."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sartor.core.abilities import Accounted
from sartor.core.contracts import CostModel, Space
from sartor.core.errors import ConfigError
from sartor.core.records import Arch

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
        if not isinstance(space, Accounted) or space.tally(self.metric, []) is None:
            raise ConfigError(f"{type(space).__name__} does not tell {self.metric}; take a space of graphs: blocks")
        self._space = space

    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        found = self._space.tally(self.metric, archs)
        assert found is not None, f"{type(self._space).__name__} tells {self.metric} of no network only"
        return found

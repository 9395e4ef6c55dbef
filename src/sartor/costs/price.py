"""What a space says that its networks cost, in money: for examples such as the space `burger`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sartor.core.abilities import Accounted, require
from sartor.core.contracts import CostModel, Space
from sartor.core.errors import CapabilityError
from sartor.core.records import Arch
from sartor.core.tables import Tables

__all__ = ["Price"]


class Price(CostModel):
    """Tables of prices, as the space accounts for them.

    Args:
        space: One with prices.

    Raises:
        CapabilityError: It has none.
    """

    metric = "price"

    def __init__(self, space: Space) -> None:
        tables = require(space, Accounted, self).account(self.metric)
        if tables is None:
            raise CapabilityError(f"Price needs a space with prices, which {type(space).__name__} does not have")
        self._tables = tables

    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        return self._tables(archs)

    def terms(self) -> Sequence[Tables]:
        return (self._tables,)

"""Latency looked up per operator and shape, and summed over the network: a table that was measured or published.

Source: Cai et al., "ProxylessNAS: Direct neural architecture search on target task and hardware", ICLR 2019, section
3.3. The sum knows nothing of what a runtime saves, or pays, between operators: docs/lookup.md says how wrong it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from sartor.core.abilities import Operated, require
from sartor.core.contracts import CostModel, Space
from sartor.core.errors import ConfigError
from sartor.core.records import Arch
from sartor.core.tables import Tables
from sartor.latency.operator_table import MEASURE, OperatorTable

__all__ = ["Lookup"]


class Lookup(CostModel):
    """Milliseconds per call: the sum of a table's entries over the operators that a network runs.

    Args:
        space: One of operators, all of which the table must hold.
        table: A JSON file that `sartor measure --operators` wrote, or a published `.yaml` one.

    Raises:
        ConfigError: No table is given.
        DataError: The table cannot be read, or lacks an operator.
        CapabilityError: The space does not list operators.
    """

    metric = "latency_ms"

    def __init__(self, space: Space, *, table: str | Path = "") -> None:
        if not str(table):
            raise ConfigError(f"the cost lookup needs a latency table; set table to a file, or {MEASURE}")
        self._tables = OperatorTable.read(table).tables(require(space, Operated, self))

    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        return self._tables(archs)

    def terms(self) -> Sequence[Tables]:
        return (self._tables,)

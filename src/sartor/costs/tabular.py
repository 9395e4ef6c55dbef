"""Looks a cost up in a table of results: the measured latency of every network of a small space, say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sartor.core.contracts import CostModel, Space
from sartor.core.errors import ConfigError
from sartor.core.records import Arch
from sartor.tabular import Table

__all__ = ["Tabular"]


class Tabular(CostModel):
    """A column of a table, as it is: no sum over layers, so methods that need tables per choice cannot use it.

    Args:
        space: Whose networks the table lists.
        table: A CSV file, also with gzip (see sartor.tabular).
        metric: The cost, named with its unit: the column `METRIC_DATASET` (`latency_ms_digits`), or `METRIC`; `macs`
            and `params` may be in `flops_M_DATASET` and `params_M_DATASET`, in millions.
        dataset: Which one, if the table has several.

    Raises:
        ConfigError: No table is given, or it has no such column.
        DataError: The table cannot be read, or does not fit the space.
    """

    def __init__(self, space: Space, *, table: str | Path = "", metric: str = "latency_ms", dataset: str = "") -> None:
        if not str(table):
            raise ConfigError("the cost tabular needs a table; set table to a CSV file with a column of costs")
        self._prepare(space, Table.read(table, space, dataset), metric)

    @classmethod
    def of(cls, space: Space, table: Table, metric: str) -> Tabular:
        """The costs in a table in memory."""
        self = cls.__new__(cls)
        self._prepare(space, table, metric)
        return self

    def _prepare(self, space: Space, table: Table, metric: str) -> None:
        self.metric, self._key, self._rows = metric, space.key, table.rows
        listed = table.cost(metric)
        self._values = (table.column(f"{metric}_{table.dataset}") if listed is None else listed).tolist()

    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        return torch.tensor([self._values[self._rows[self._key(arch)]] for arch in archs], dtype=torch.float64)

from __future__ import annotations

import pytest

from sartor import archs
from sartor.core.abilities import Terms
from sartor.core.errors import ConfigError
from sartor.costs.tabular import Tabular
from sartor.spaces.tiny import Tiny
from sartor.tabular import Table
from tables import timed, written


def test_costs_are_those_in_the_rows(tmp_path):
    space = Tiny()
    cost = Tabular(space, table=timed(tmp_path))
    rows = [line.split(",") for line in (tmp_path / "timed.csv").read_text().splitlines()[1:]]
    listed = {row[0]: float(row[-1]) for row in rows}
    every = list(archs.enumerate_all(space))
    assert cost.metric == "latency_ms"
    assert cost(every).tolist() == [listed[space.key(arch)] for arch in every]
    assert not isinstance(cost, Terms)


def test_of_a_table_in_memory(tmp_path):
    space, path = Tiny(), timed(tmp_path)
    table = Table.read(path, space)
    assert table.costs() == {"latency_ms": "latency_ms_toy"}
    assert float(Tabular.of(space, table, "latency_ms")([(0, 0, 0)])[0]) == 0.01


def test_mistakes(tmp_path):
    with pytest.raises(ConfigError, match="needs a table"):
        Tabular(Tiny())
    with pytest.raises(ConfigError, match="no column 'latency_ms_toy'"):
        Tabular(Tiny(), table=written(tmp_path))

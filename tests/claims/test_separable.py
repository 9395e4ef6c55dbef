"""Each search over operations finds nearly the best network of an objective that is a sum, under five budgets."""

from __future__ import annotations

import importlib.util
import statistics
from pathlib import Path

import pytest

from sartor.core.rng import numpy_rng

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def separable():
    spec = importlib.util.spec_from_file_location("separable", ROOT / "benchmarks" / "separable.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def table(separable, tmp_path):
    """Milliseconds that grow with kernel, expansion and map, times luck."""
    rng, lines = numpy_rng(0, "table"), []
    operators = separable.Sums().operators()
    for operator in operators.all():
        words = dict(part.split(":") for part in operator.key.split("-")[1:])
        side, _, width = (int(v) for v in words["output"].split("x")) if "x" in words["output"] else (1, 1, 1000)
        work = side * width**0.5 * int(words.get("expand", 1)) * (2 + int(words.get("kernel", 1)))
        lines.append(f"{operator.key}:\n  count: 10\n  mean: {work / 2000 * rng.uniform(0.8, 1.25):.6f}\n  var: 0.01\n")
    path = tmp_path / "table.yaml"
    path.write_text("".join(lines))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["darts", "one_shot", "proxyless", "tunas"])
def test_within_one_per_cent_of_the_optimum_in_the_median(separable, table, name):
    rows = [r for seed in range(3) for r in separable.searched(name, separable.SETTINGS[name], seed, table)]
    assert {r["share"] for r in rows} == set(separable.SHARES)
    assert all(r["latency_ms"] <= r["limit_ms"] for r in rows)
    assert statistics.median(r["gap"] for r in rows) <= 0.01


def test_gaps_are_measured_from_the_exact_optimum(separable, table):
    """Settings that teach nothing: within budget, and far behind."""
    settings = {**separable.SETTINGS["darts"], "epochs": 1, "arch_lr": 1e-9}
    rows = separable.searched("darts", settings, 0, table)
    assert all(r["latency_ms"] <= r["limit_ms"] and r["optimum"] < r["chance"] for r in rows)
    assert statistics.median(r["gap"] for r in rows) > 0.05

from __future__ import annotations

import pytest

from sartor.core.errors import BudgetError, ConfigError
from sartor.core.records import Constraint
from sartor.jobs.fit.budget import Budget, aimed, check_reachable, constraints, human, words

REFERENCE = {"latency_ms": 2.0, "macs": 1e6}


def test_per_cent_and_numbers_become_absolute_limits():
    budget = Budget.of({"latency_ms": ["50%", 0.6], "macs": 7e5})
    assert budget.measured
    assert budget.points(REFERENCE) == [{"latency_ms": 1.0, "macs": 7e5}, {"latency_ms": 0.6, "macs": 7e5}]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "the budget is empty"),
        ({"latency": 3}, "did you mean 'latency_ms'"),
        ({"latency_ms": "fast"}, "must be a number or per cent"),
        ({"latency_ms": "0%"}, "must be a number or per cent"),
        ({"latency_ms": -1}, "must be a positive number"),
        ({"latency_ms": True}, "must be a positive number"),
        ({"macs": []}, "the budget is empty"),
        ({"macs": [1, 2], "params": [1, 2]}, "one metric only"),
    ],
)
def test_what_is_no_budget(table, message):
    with pytest.raises(ConfigError, match=message):
        Budget.of(table)


def test_an_impossible_budget_names_the_floor():
    with pytest.raises(BudgetError, match=r"the smallest one takes 0.3 ms"):
        check_reachable([{"latency_ms": 0.2}], REFERENCE, {"latency_ms": 0.3, "macs": 1e5})


def test_a_budget_above_the_reference_needs_nothing():
    with pytest.raises(BudgetError, match="nothing needs to be done: the reference is inside"):
        check_reachable([{"latency_ms": 2.5}], REFERENCE, {"latency_ms": 0.3, "macs": 1e5})


def test_one_metric_above_and_one_below_the_reference_is_a_real_budget():
    check_reachable([{"latency_ms": 2.5, "macs": 5e5}], REFERENCE, {"latency_ms": 0.3, "macs": 1e5})


def test_the_search_is_told_all_levels_loosest_first():
    points = [{"latency_ms": 0.6, "macs": 7e5}, {"latency_ms": 1.0, "macs": 7e5}]
    assert constraints(points) == (Constraint("latency_ms", 1.0, (0.6,)), Constraint("macs", 7e5))


def test_words():
    assert human("macs", 12_345_678) == "12.35 M"
    assert human("memory_bytes", 2e6) == "2 MB"
    assert words({"latency_ms": 0.5}) == "latency_ms <= 0.5 ms"


def test_a_search_aims_below_a_latency_budget_by_the_error_of_the_model():
    points = [{"latency_ms": 4.0, "macs": 7.0}, {"latency_ms": 2.0, "macs": 7.0}]
    assert aimed(points, 0.05, least=1.0) == [{"latency_ms": 3.8, "macs": 7.0}, {"latency_ms": 1.9, "macs": 7.0}]
    assert [p["latency_ms"] for p in aimed(points, 0.5, least=1.95)] == [3.6, 1.95], "at most a tenth is kept back"
    assert [p["latency_ms"] for p in aimed(points, 0.05, least=2.5)] == [3.8, 2.0], "never above the budget"

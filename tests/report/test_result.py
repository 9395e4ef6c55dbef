from __future__ import annotations

import math
import subprocess
import sys

import pytest
from sartor.report.result import Measured, amount, bound, duration, human, measured, number, read, text

from report.fixture import outdone, synthetic


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "-"),
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1234, "1.23 k"),
        (271_690, "272 k"),
        (999_900, "1.00 M"),
        (12_345_678, "12.3 M"),
        (3.2e9, "3.20 G"),
        (0.5, "0.500"),
    ],
)
def test_human_units(value, words):
    assert human(value) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "-"), (0.42, "0.4 s"), (59.4, "59 s"), (59.9, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_duration(seconds, words):
    assert duration(seconds) == words


def test_amounts_carry_the_unit_of_the_metric():
    assert amount("latency_ms", 0.94) == "0.940 ms"
    assert bound("latency_ms", 0.94) == "0.94 ms"
    assert bound("latency_ms", 100.0) == "100 ms"
    assert bound("macs", 12e6) == "12 M"
    assert amount("memory_bytes", 889_000) == "889 kB"


def test_numbers_are_finite_and_no_booleans():
    assert [number(v) for v in (1, 2.5, True, "3", None, math.nan, math.inf, 10**400)] == [1, 2.5, *[None] * 6]


def test_intervals_hold_their_value():
    assert measured({"value": 1.0, "low": 0.9, "high": 1.2}) == Measured(1.0, 0.9, 1.2)
    assert measured(0.5, {"low": 0.6, "high": None}) == Measured(0.5, 0.5, 0.5)
    assert measured({"low": 0.9}) is None


def test_text_has_no_control_characters():
    assert text("a\x1b[31mb\nc") == "a [31mb c"


def test_without_a_curve_the_first_budget_is_the_run():
    raw = synthetic(budgets=1)
    whole = read(raw)
    del raw["curve"]
    (fitting,) = read(raw).fittings
    assert fitting.limits == whole.fittings[0].limits == {"latency_ms": 0.96}
    assert fitting.winner == whole.fittings[0].winner
    assert fitting.verdict == "PASS"


def test_the_networks_of_a_budget_are_those_that_there_are():
    first, second = read(outdone(synthetic())).fittings
    assert [n.label for n in first.networks] == ["winner", "uniform", "searched"]
    assert [n.label for n in second.networks] == ["winner", "uniform"]
    assert first.reason.startswith("on the validation split")
    assert (second.searched, second.reason) == (None, "")
    assert [n.label for n in read(outdone(synthetic())).networks][:4] == ["reference", "winner", "uniform", "searched"]


def test_widths_are_read_off_the_choices_when_they_are_missing():
    raw = synthetic()
    expected = dict(raw["reference"].pop("widths"))
    assert read(raw).reference.widths == expected


@pytest.mark.parametrize("raw", [None, [], {}, {"curve": [None, 3]}, {"search": {"trials": 1}, "ledger": "x"}])
def test_anything_is_readable(raw):
    result = read(raw)
    assert result.networks == []
    assert result.stages == ()


def test_the_report_imports_neither_torch_nor_the_search():
    code = "import sys, sartor.report.page; print(sorted(m for m in sys.modules if m.startswith(('torch', 'sartor'))))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = {m.strip("' ") for m in out.strip("[]\n").split(",")}
    parts = ("front", "page", "plots", "result", "table")
    allowed = {"sartor", "sartor.core", "sartor.core.errors", "sartor.report", *(f"sartor.report.{p}" for p in parts)}
    assert loaded == allowed

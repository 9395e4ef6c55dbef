from __future__ import annotations

import subprocess
import sys

import pytest

from report.fixture import outdone, synthetic
from sartor.core.metrics import Metric, Score
from sartor.report.format import amount, bound, change, duration, human, networks_at, networks_of, quality, text


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


def test_text_has_no_control_characters():
    assert text("a\x1b[31mb\nc") == "a [31mb c"


def test_the_networks_of_a_point_are_those_that_there_are():
    result = outdone(synthetic()[0])
    assert [n.label for n in networks_at(result, 0)] == ["winner", "uniform", "searched"]
    assert [n.label for n in networks_at(result, 1)] == ["winner", "uniform"]
    assert [n.label for n in networks_of(result)][:4] == ["reference", "winner", "uniform", "searched"]
    assert networks_at(result, 0)[0].entry == result.points[0].uniform


@pytest.mark.parametrize(
    ("unit", "score", "words"),
    [
        ("share", Score(0.981, 0.974, 0.986, 100), "98.1 % (97.4-98.6)"),
        ("share", Score(0.981), "98.1 %"),
        ("dB", Score(31.2412, 30.9, 31.6, 5), "31.24 dB (30.9-31.6)"),
        ("m", Score(0.42153), "0.4215 m"),
        ("", Score(0.011), "0.011"),
        ("dB", None, "-"),
    ],
)
def test_qualities_carry_their_unit_and_their_interval(unit, score, words):
    assert quality(Metric("q", "max", unit), score) == words


def test_a_change_without_an_interval_says_so():
    assert change(Metric("psnr", "max", "dB"), Score(0.31)) == "+0.31 dB, no interval"
    assert change(Metric("a", "max", "share"), Score(0.014, -0.005, 0.036)) == "+1.4 points (-0.5 to +3.6)"


def test_the_report_imports_neither_torch_nor_the_search():
    code = "import sys, sartor.report.page; print(sorted(m for m in sys.modules if m.startswith(('torch', 'sartor'))))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = {m.strip("' ") for m in out.strip("[]\n").split(",")}
    assert {"sartor.report.page", "sartor.run.result"} <= loaded
    assert not any(m.startswith("torch") for m in loaded)
    assert not any(m.startswith(("sartor.strategies", "sartor.evaluators", "sartor.spaces")) for m in loaded)

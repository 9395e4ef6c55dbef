from __future__ import annotations

import csv
import io
import json

import numpy as np
from rich.console import Console

from sartor.report.bench import overview, sentences, write

CURVES = {
    "good": np.array([[90.0, 91, 93], [90, 92, 93]]),
    "bad<b>": np.array([[np.nan, 80.0, 81], [85, 85, 85]]),
}
FOUND = {
    "space": {"name": "toys"},
    "dataset": "d",
    "signal": "d_valid_12",
    "noise": 0.5,
    "reported": "d_test_90",
    "budget": {"macs": 1.5e6},
    "evaluations": 3,
    "runs": 2,
    "optimum": 94.0,
    "strategies": {
        name: {
            "mean": float(c[:, -1].mean()),
            "std": 0.5,
            "median": 1.0,
            "q25": 1.0,
            "q75": 2.0,
            "at": {"2": 1.0},
            "seconds": 3,
        }
        for name, c in CURVES.items()
    },
    "tests": [
        {"a": "bad<b>", "b": "good", "difference": -10.0, "p": 0.01},
        {"a": "bad<b>", "b": "good", "difference": -0.1, "p": 0.6},
    ],
}


def test_four_files(tmp_path):
    write(FOUND, CURVES, tmp_path / "new")
    assert json.loads((tmp_path / "new/bench.json").read_text()) == FOUND
    rows = list(csv.DictReader((tmp_path / "new/curves.csv").read_text().splitlines()))
    assert [(r["strategy"], r["evaluations"], r["mean"]) for r in rows][:4] == [
        ("good", "1", "90"),
        ("good", "2", "91.5"),
        ("good", "3", "93"),
        ("bad<b>", "2", "82.5"),  # one run had nothing before
    ]
    assert (tmp_path / "new/bench.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = (tmp_path / "new/bench.html").read_text()
    assert "bad&lt;b&gt;" in page
    assert "<b>" not in page.partition("<script>")[0]
    assert "default-src 'none'" in page
    assert "http" not in page.partition("<script>")[0].replace("http-equiv", "")


def test_against_the_seconds_of_training(tmp_path):
    rows = {name: {**row, "at_seconds": {"10": 1.25}} for name, row in FOUND["strategies"].items()}
    rows["good"]["at_seconds"]["20"] = 2.5
    times = np.array([5.0, 20.0])
    timed = {name: (times, c[:, 1:]) for name, c in CURVES.items()}
    timed["bad<b>"] = (np.zeros(0), np.zeros((2, 0)))  # one run found nothing
    write({**FOUND, "strategies": rows}, CURVES, tmp_path, timed)
    read = list(csv.DictReader((tmp_path / "curves_seconds.csv").read_text().splitlines()))
    assert [(r["strategy"], r["seconds"], r["mean"]) for r in read] == [("good", "5", "91.5"), ("good", "20", "93")]
    page = (tmp_path / "bench.html").read_text()
    assert "<th>at 10 s</th><th>at 20 s</th>" in page
    assert "<td>1.250</td><td></td>" in page
    assert "curves1" in page


def test_without_times_there_is_one_figure(tmp_path):
    write(FOUND, CURVES, tmp_path)
    assert not (tmp_path / "curves_seconds.csv").exists()
    assert "curves1" not in (tmp_path / "bench.html").read_text()


def test_the_table_has_the_best_first():
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(overview(FOUND))
    text = console.export_text()
    assert text.index("good") < text.index("bad<b>")
    assert "macs <= 1.5e+06" in text
    assert "noise of 0.5 points" in text


def test_sentences_say_what_is_luck():
    assert list(sentences(FOUND)) == [
        "good ends 10.000 above bad<b> (p = 0.01)",
        "good and bad<b> cannot be told apart (p = 0.60)",
    ]

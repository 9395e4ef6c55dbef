from __future__ import annotations

import json

from sartor.cli import main
from tables import written


def test_a_table_and_four_files(tmp_path, capsys):
    table, out = written(tmp_path), tmp_path / "out"
    arguments = ["bench", "tiny", "--table", str(table), "--strategies", "random_search, uniform", "--budget"]
    arguments += ["macs=1e9", "--runs", "3", "--evaluations", "12", "--out", str(out), "--workers", "1", "--quiet"]
    arguments += ["--space", "size=8", "--space", "classes=10"]  # sartor does not know the data set
    arguments += ["--set", "uniform.name=random_search", "--set", "uniform.trials=2"]
    assert main([*arguments, "--space", "widths=[4, 8]", "--json"]) == 2  # the table has other widths, too
    assert "toy.csv" in capsys.readouterr().err
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["strategies"]["uniform"]["settings"] == {"name": "random_search", "trials": 2}
    assert found["strategies"]["random_search"]["at"]["10"] > 0
    assert {p.name for p in out.iterdir()} == {"bench.html", "bench.json", "bench.png", "curves.csv"}
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "random_search" in shown
    assert "bench.html shows the curves" in shown


def test_mistakes_are_one_line(tmp_path, capsys):
    table = written(tmp_path)
    assert main(["bench", "tinny", "--table", str(table)]) == 2
    assert "tiny" in capsys.readouterr().err
    assert main(["bench", "tiny", "--table", str(tmp_path / "none.csv")]) == 2
    assert "none.csv" in capsys.readouterr().err


def test_the_table_that_ships_needs_no_file(tmp_path, capsys):
    arguments = ["bench", "digits_widths", "--strategies", "random_search,hyperband", "--runs", "2", "--workers", "1"]
    arguments += ["--evaluations", "20", "--budget", "latency_ms=0.014", "--quiet", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["table"] == "digits_widths.csv.gz"
    assert found["strategies"]["random_search"]["at_seconds"]
    assert (tmp_path / "out" / "curves_seconds.csv").exists()
    assert main(["bench", "tiny"]) == 2
    assert "no table comes with sartor for the space 'tiny', only for digits_widths" in capsys.readouterr().err
    assert main([*arguments, "--budget", "latency_ms=0.001"]) == 2
    assert "the smallest has latency_ms" in capsys.readouterr().err

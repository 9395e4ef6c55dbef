from __future__ import annotations

import json

from sartor.cli import main


def test_prints_the_file_and_the_error(finished, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", str(finished.folder), "--target", "onnxruntime", "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["file"] == str(out / "model.onnx")
    assert found["relative_error"] < 1e-3
    assert (out / "model.onnx").exists()


def test_a_network_that_is_not_there_is_a_mistake(finished, capsys):
    assert main(["export", str(finished.folder), "--network", "searched"]) == 2
    assert "the winner is the search's own network" in capsys.readouterr().err


def test_a_search_for_optuna(finished, tmp_path, capsys):
    out = tmp_path / "studies.db"
    assert main(["export", str(finished.folder), "--to", "optuna", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"study {finished.folder.name}: " in said
    assert f"optuna-dashboard sqlite:///{out}" in said
    assert main(["export", str(finished.folder), "--to", "optuna", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == str(out)
    assert main(["export", str(tmp_path), "--to", "optuna"]) == 2
    assert "no search has begun" in capsys.readouterr().err

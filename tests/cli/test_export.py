from __future__ import annotations

import json
import shutil
from dataclasses import replace

from sartor.cli import main
from sartor.run.result import write


def test_prints_the_file_and_the_error(finished, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", str(finished.folder), "--target", "onnxruntime", "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["file"] == str(out / "model.onnx")
    assert found["relative_error"] < 1e-3
    assert (out / "model.onnx").exists()


def test_the_searchs_own_network_is_always_there(finished, tmp_path, capsys):
    arguments = ["export", str(finished.folder), "--network", "searched", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--target", "torch_cpu"]) == 0
    assert "largest relative error" in capsys.readouterr().out


def test_a_network_that_is_not_there_is_a_mistake(finished, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    point = replace(finished.result.points[0], uniform=None, delivered="searched")
    write(folder, replace(finished.result, points=(point,)))
    assert main(["export", str(folder), "--network", "uniform"]) == 2
    assert "has no uniform network at point 0" in capsys.readouterr().err


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

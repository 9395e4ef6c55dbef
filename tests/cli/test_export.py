from __future__ import annotations

import json
import shutil
from dataclasses import replace

from sartor.cli import main
from sartor.core import files
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


def test_sizes_by_name_and_mistakes_in_a_line(finished, tmp_path, capsys):
    arguments = ["export", str(finished.folder), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--dynamic", "height,width", "--opset", "19", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["note"] == ""
    assert len(found["sha256"]) == 64
    assert main([*arguments, "--dynamic", "input.2", "--otherwise", "fixed"]) == 0
    assert f"SHA-256: {files.sha256(tmp_path / 'out' / 'model.onnx')}" in capsys.readouterr().out
    for wrong, words in (
        (["--opset", "99"], "export.opset must be from 7 to"),
        (["--opset", "-3"], "export.opset must be positive, or 0"),
        (["--dynamic", "depth"], "have no size 'depth' beside the batch; "),
        (["--dynamic", ""], "have no size ''"),
        (["--otherwise", "perhaps"], "--otherwise"),
        (["--point", "7"], "there is no 7"),
        (["--target", "no such"], "no targets called 'no such'"),
    ):
        assert main([*arguments, *wrong]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert words in err

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

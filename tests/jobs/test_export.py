from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.torch import load_file

from sartor.core import files
from sartor.core.errors import ConfigError, StateError
from sartor.jobs.export import export
from sartor.run.result import write


def test_another_target_gives_the_same_outputs(finished, tmp_path):
    found = export(finished.folder, "torch_cpu", tmp_path / "out")
    assert found.relative_error < 1e-5
    assert found.file is None or Path(found.file).exists()


@pytest.mark.parametrize("network", ["uniform", "reference"])
def test_the_other_networks_of_the_run_too(finished, tmp_path, network):
    found = export(finished.folder, "onnxruntime", tmp_path, network=network)
    entry = finished.result.reference if network == "reference" else getattr(finished.result.points[0], network)
    written = [numpy_helper.to_array(t) for t in onnx.load(found.file).graph.initializer]
    bias = load_file(finished.folder / entry.weights)["classifier.bias"].numpy()
    assert any(w.shape == bias.shape and np.array_equal(w, bias) for w in written)


def test_what_the_search_has_found_where_it_is_not_the_winner(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    result = finished.result
    point = replace(result.points[0], searched=result.reference, delivered="uniform")
    write(folder, replace(result, points=(point,)))
    found = {name: export(folder, "onnxruntime", tmp_path / name, network=name) for name in ("searched", "winner")}
    for name, entry in (("searched", result.reference), ("winner", point.uniform)):
        written = [numpy_helper.to_array(t) for t in onnx.load(found[name].file).graph.initializer]
        bias = load_file(folder / entry.weights)["classifier.bias"].numpy()
        assert any(w.shape == bias.shape and np.array_equal(w, bias) for w in written)


def test_a_network_that_there_is_not_is_said(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    write(folder, replace(finished.result, points=(replace(finished.result.points[0], uniform=None),)))
    with pytest.raises(StateError, match="has no uniform network at point 0"):
        export(folder, "onnxruntime", tmp_path / "out", network="uniform")


def test_mistakes_are_named(finished, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'onnxruntime'"):
        export(finished.folder, "onnx_runtime", tmp_path)
    with pytest.raises(StateError, match="has 1 networks, counted from 0; there is no 3"):
        export(finished.folder, "torch_cpu", tmp_path, point=3)
    with pytest.raises(StateError, match="finish the run first"):
        export(tmp_path, "torch_cpu", tmp_path / "out")


def test_sizes_and_opset_are_those_of_the_run_unless_given(finished, tmp_path):
    found = export(finished.folder, "onnxruntime", tmp_path, wishes={"opset": 18, "dynamic": ("height", "width")})
    assert (found.note, found.sha256) == ("", files.sha256(Path(found.file)))
    model = onnx.load(found.file)
    assert model.opset_import[0].version == 18
    names = [d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert names == ["batch", "", "height", "width"]
    plain = onnx.load(export(finished.folder, "onnxruntime", tmp_path).file)
    assert [d.dim_value for d in plain.graph.input[0].type.tensor_type.shape.dim] == [0, 1, 16, 16]
    with pytest.raises(ConfigError, match="did you mean 'width'"):
        export(finished.folder, "torch_cpu", tmp_path, wishes={"dynamic": ("widht",)})


def test_other_weights_than_the_runs_are_not_exported(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    (folder / finished.result.reference.weights).write_bytes(b"others")
    with pytest.raises(StateError, match="has SHA-256"):
        export(folder, "torch_cpu", tmp_path / "out", network="reference")

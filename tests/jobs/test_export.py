from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.torch import load_file

from sartor.core.errors import ConfigError, StateError
from sartor.jobs.export import export


def test_another_target_gives_the_same_outputs(finished, tmp_path):
    found = export(finished.folder, "torch_cpu", tmp_path / "out")
    assert found["relative_error"] < 1e-5
    assert found["file"] is None or Path(found["file"]).exists()


@pytest.mark.parametrize("network", ["uniform", "reference"])
def test_the_other_networks_of_the_run_too(finished, tmp_path, network):
    found = export(finished.folder, "onnxruntime", tmp_path, network=network)
    entry = finished.result["reference"] if network == "reference" else finished.result["curve"][0][network]
    written = [numpy_helper.to_array(t) for t in onnx.load(found["file"]).graph.initializer]
    bias = load_file(finished.folder / entry["weights"])["classifier.bias"].numpy()
    assert any(w.shape == bias.shape and np.array_equal(w, bias) for w in written)


def test_mistakes_are_named(finished, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'onnxruntime'"):
        export(finished.folder, "onnx_runtime", tmp_path)
    with pytest.raises(StateError, match="has 1 networks, counted from 0; there is no 3"):
        export(finished.folder, "torch_cpu", tmp_path, point=3)
    with pytest.raises(StateError, match="finish the run first"):
        export(tmp_path, "torch_cpu", tmp_path / "out")

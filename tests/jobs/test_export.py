from __future__ import annotations

from pathlib import Path

import pytest

from sartor.core.errors import ConfigError, StateError
from sartor.jobs.export import export


def test_another_target_gives_the_same_outputs(finished, tmp_path):
    found = export(finished.folder, "torch_cpu", tmp_path / "out")
    assert found["relative_error"] < 1e-5
    assert found["file"] is None or Path(found["file"]).exists()


def test_mistakes_are_named(finished, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'onnxruntime'"):
        export(finished.folder, "onnx_runtime", tmp_path)
    with pytest.raises(StateError, match="has 1 networks, counted from 0; there is no 3"):
        export(finished.folder, "torch_cpu", tmp_path, point=3)
    with pytest.raises(StateError, match="finish the run first"):
        export(tmp_path, "torch_cpu", tmp_path / "out")

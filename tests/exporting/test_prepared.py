from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from sartor.core.errors import CapabilityError, ConfigError, TargetError
from sartor.core.records import Form
from sartor.exporting import check_target, prepare
from sartor.targets.onnxruntime import OnnxRuntime
from sartor.targets.torch_cpu import TorchCpu

X = torch.zeros(1, 3, 8, 8)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


class Plain(OnnxRuntime):
    """As somebody wrote it who knows of no forms."""

    def prepare(self, module, example, folder):  # type: ignore[override,no-untyped-def]
        return super().prepare(module, example, folder)


@pytest.mark.parametrize("opset", [18, 20, 21])
def test_the_file_has_the_opset_and_the_open_sizes_that_were_asked_for(opset: int, tmp_path: Path) -> None:
    found = prepare(OnnxRuntime(), network(), X, tmp_path, Form(opset, ("height", "width")), tolerance=1e-3)
    assert found.note == ""
    assert found.relative_error < 1e-4
    model = onnx.load(str(tmp_path / "model.onnx"))
    assert model.opset_import[0].version == opset
    sizes = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["batch", 3, "height", "width"]
    assert found.session(torch.zeros(2, 3, 17, 9)).shape == (2, 4)


@pytest.mark.parametrize("opset", [-1, 1, 6, 29, 10_000])
def test_an_opset_out_of_range_is_one_line(opset: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"export\.opset must be .*got") as caught:
        prepare(OnnxRuntime(), network(), X, tmp_path, Form(opset), tolerance=1e-3)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_opset_that_the_exporter_does_not_reach_is_not_another_one_silently(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"export\.opset 9: \w+ has no form in it, only in opset \d+"):
        prepare(OnnxRuntime(), network(), X, tmp_path, Form(9), tolerance=1e-3)


def test_a_target_of_ones_own_that_knows_no_forms(tmp_path: Path) -> None:
    assert prepare(Plain(), network(), X, tmp_path, tolerance=1e-3).note == ""
    with pytest.raises(CapabilityError, match=r"Plain\.prepare takes no `form`"):
        prepare(Plain(), network(), X, tmp_path, Form(opset=18), tolerance=1e-3)


def test_whoever_writes_no_onnx_takes_any_opset_that_there_is() -> None:
    check_target(TorchCpu(), Form(opset=18))

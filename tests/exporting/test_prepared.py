from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from sartor.core import trees
from sartor.core.errors import CapabilityError, ConfigError, TargetError
from sartor.core.records import ExportSettings
from sartor.core.rng import global_seed, torch_rng
from sartor.core.trees import Inputs, Tree
from sartor.exporting import check_target, drawn, prepare
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
    found = prepare(OnnxRuntime(), network(), X, tmp_path, ExportSettings(opset, ("height", "width")), tolerance=1e-3)
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
        prepare(OnnxRuntime(), network(), X, tmp_path, ExportSettings(opset), tolerance=1e-3)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_opset_that_the_exporter_does_not_reach_is_not_another_one_silently(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"export\.opset 9: \w+ has no form in it, only in opset \d+"):
        prepare(OnnxRuntime(), network(), X, tmp_path, ExportSettings(9), tolerance=1e-3)


def test_a_target_of_ones_own_that_knows_no_forms(tmp_path: Path) -> None:
    assert prepare(Plain(), network(), X, tmp_path, tolerance=1e-3).note == ""
    with pytest.raises(CapabilityError, match=r"Plain\.prepare takes no `settings`"):
        prepare(Plain(), network(), X, tmp_path, ExportSettings(opset=18), tolerance=1e-3)


def test_whoever_writes_no_onnx_takes_any_opset_that_there_is() -> None:
    check_target(TorchCpu(), ExportSettings(opset=18))


class Labels(nn.Module):
    """Scores, the label inside, and the best two: numbers of two kinds, in a dict and a named tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tree:
        scores = self.head(torch.relu(self.body(x)).mean((2, 3)))
        return {"label": scores.argmax(1), "heads": [{"scores": scores.softmax(1)}], "top": scores.topk(2)}


class Words(nn.Module):
    """Token ids by name, and a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(30, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.head((self.words(ids) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


IMAGE = torch.randn(1, 3, 8, 8, generator=torch_rng(0, "image"))
IDS = {"ids": torch.tensor([[7, 3, 29, 0]]), "mask": torch.tensor([[1, 1, 1, 0]])}
CASES: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "labels": (Labels, IMAGE),
    "channels last": (lambda: network().to(memory_format=torch.channels_last), IMAGE),
    "half": (lambda: network().half(), IMAGE.half()),
    "tokens": (Words, IDS),
    "tokens by place": (Words, tuple(IDS.values())),
}


@pytest.mark.parametrize("batch", [1, 3, 5])
@pytest.mark.parametrize("target", [OnnxRuntime, TorchCpu])
@pytest.mark.parametrize("case", CASES)
def test_networks_of_all_kinds_at_any_batch(case: str, target: type[Any], batch: int, tmp_path: Path) -> None:
    make, example = CASES[case]
    with global_seed(0):
        module = make().eval()
    found = prepare(target(), module, example, tmp_path, tolerance=2e-3)
    assert found.note == ""
    inputs = drawn(example, torch_rng(batch, "test"), batch=batch)
    with torch.no_grad():
        expected = trees.call(module, inputs)
    given = trees.named(target().load(found.session.artifact)(inputs), "output")
    for value, wanted in zip(given.values(), trees.leaves(expected), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-2, atol=2e-3)


def test_outputs_have_the_names_of_keys_and_fields(tmp_path: Path) -> None:
    prepare(OnnxRuntime(), Labels().eval(), IMAGE, tmp_path, tolerance=1e-3)
    graph = onnx.load(str(tmp_path / "model.onnx")).graph
    assert [o.name for o in graph.output] == ["label", "heads.0.scores", "top.values", "top.indices"]
    found = OnnxRuntime().load(tmp_path / "model.onnx")(IMAGE)
    assert found["top"].indices.shape == (1, 2)


@pytest.mark.parametrize(
    ("make", "example", "message"),
    [
        (lambda: network().double(), IMAGE.double(), "in float64, .* cast it to float32, or take target torch_cpu"),
        (
            lambda: network().bfloat16(),
            IMAGE.bfloat16(),
            "in bfloat16, .* cast it to float32, or take target torch_cpu",
        ),
        (lambda: network().to("meta"), IMAGE, "Sequential is on the meta device, so it has no weights"),
    ],
)
def test_what_onnx_runtime_cannot_run_is_a_line_with_a_way_out(
    make: Any, example: Inputs, message: str, tmp_path: Path
) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        prepare(OnnxRuntime(), make(), example, tmp_path, tolerance=1e-3)
    assert "\n" not in str(caught.value)
    if "meta" not in message:
        assert prepare(TorchCpu(), make(), example, tmp_path, tolerance=1e-2).note == ""

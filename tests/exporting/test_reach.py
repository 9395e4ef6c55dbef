"""What a file takes beside its example."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sartor.core.errors import ConfigError
from sartor.core.records import ExportSettings
from sartor.core.rng import global_seed
from sartor.core.trees import Inputs, Tree
from sartor.exporting import NarrowError, check_export, written
from sartor.exporting.reach import _refusal
from sartor.targets.onnxruntime import OnnxRuntime
from sartor.targets.torch_cpu import TorchCpu

X = torch.zeros(1, 3, 8, 8)
OPEN = ExportSettings(dynamic=("height", "width"))


class Positions(nn.Module):
    """An embedding of positions: made for one size, as in a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.positions = nn.Conv2d(3, 4, 2, 2), nn.Parameter(torch.randn(1, 16, 4))

    def forward(self, x: Tensor) -> Tensor:
        return (self.patches(x).flatten(2).transpose(1, 2) + self.positions).mean(1)


class Pooled(nn.Module):
    """Pooling to a size that does not divide others: ONNX has no form of it with open sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.head = nn.AdaptiveAvgPool2d(3), nn.Linear(27, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(x).flatten(1))


class Down(nn.Module):
    """Down and up again, and side by side: of multiples of two only."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 4, 3, 2, 1), nn.ConvTranspose2d(4, 4, 2, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": torch.cat([x, self.up(self.down(x))], 1)}


class OneByOne(nn.Module):
    """A loop over the batch, which no trace keeps."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([2 * image.mean((1, 2)) for image in x])


class Tokens(nn.Module):
    """Ids and a mask, with learned positions for up to 12."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions, self.head = nn.Embedding(20, 8), nn.Embedding(12, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = (self.words(ids) + self.positions(torch.arange(ids.shape[1]))) * mask[..., None]
        return self.head(torch.relu(x)).sum(1)


IDS = {"ids": torch.tensor([[3, 1, 4, 1, 5, 9]]), "mask": torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0, 0.0]])}


def of(target: Any, module: nn.Module, example: Inputs, folder: Path) -> Callable[[ExportSettings], Any]:
    return lambda settings: target().prepare(module, example, folder, settings)


def made(kind: Callable[[], nn.Module]) -> nn.Module:
    with global_seed(0):
        return kind().eval()


@pytest.mark.parametrize("target", [OnnxRuntime, TorchCpu])
@pytest.mark.parametrize(
    ("kind", "example", "settings"),
    [
        (Down, X, OPEN),
        (Tokens, IDS, ExportSettings(dynamic=("length",))),
        (Tokens, IDS, ExportSettings(dynamic=("ids.1", "mask.1"))),
    ],
)
def test_sizes_that_are_open_are_taken(target, kind, example, settings, tmp_path):
    module = made(kind)
    found = written(of(target, module, example, tmp_path), module, example, settings)
    assert found.note == ""
    assert found.error < 1e-4


@pytest.mark.parametrize("target", [OnnxRuntime, TorchCpu])
def test_a_network_made_for_one_size_is_refused_or_fixed_with_a_word(target, tmp_path):
    module = made(Positions)
    with pytest.raises(NarrowError, match=r"open height, width: Positions itself cannot take \(3, 3, 16, 24\) .*fixed"):
        written(of(target, module, X, tmp_path), module, X, OPEN)
    found = written(
        of(target, module, X, tmp_path), module, X, ExportSettings(dynamic=("height",), otherwise="fixed"), file="F"
    )
    assert found.note.startswith("F takes inputs of (1, 3, 8, 8) only: Positions itself cannot take")
    assert torch.allclose(found.run(X + 1), module(X + 1), atol=1e-5)


def test_a_file_that_is_wrong_for_other_sizes_is_not_delivered(tmp_path):
    module = made(Pooled)
    with pytest.raises(NarrowError, match=r"it is off by \S+ of PyTorch's range for inputs of"):
        written(of(OnnxRuntime, module, X, tmp_path), module, X, OPEN)
    settings = ExportSettings(dynamic=OPEN.dynamic, otherwise="fixed")
    found = written(of(OnnxRuntime, module, X, tmp_path), module, X, settings)
    assert "takes inputs of (1, 3, 8, 8) only: it is off by" in found.note
    assert written(of(TorchCpu, module, X, tmp_path), module, X, OPEN).note == ""  # a program can


@pytest.mark.parametrize("target", [OnnxRuntime, TorchCpu])
def test_a_batch_that_the_code_fixes_is_said(target, tmp_path):
    found = written(of(target, OneByOne(), X, tmp_path), OneByOne(), X, file="F")
    assert found.note.startswith("F takes batches of 1 only: ")
    assert found.run(X).shape == (1, 3)
    assert written(of(target, OneByOne(), X, tmp_path), OneByOne(), X, ExportSettings(batch="fixed")).note == ""


def test_a_file_that_is_wrong_for_another_batch_gives_way_to_a_fixed_one():
    seen = []

    def write(settings: ExportSettings) -> Callable[[Inputs], Tree]:
        seen.append(settings.batch)
        return lambda x: x.mean((1, 2, 3)) + (len(x) > 1)

    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((1, 2, 3))

    found = written(write, Mean(), X)
    assert seen == ["open", "fixed"]
    assert "takes batches of 1 only: it is off by" in found.note


def test_what_the_network_cannot_take_is_found_without_a_file():
    check_export(made(Down), X, OPEN)
    check_export(made(Positions), X, ExportSettings())
    check_export(made(Positions), X, ExportSettings(dynamic=("height",), otherwise="fixed"))
    with pytest.raises(NarrowError, match="Positions itself cannot take"):
        check_export(made(Positions), X, OPEN)
    with pytest.raises(NarrowError, match="its code turns a size that is to be open into the number 8"):
        check_export(Frozen(), X, OPEN)
    with pytest.raises(ConfigError, match="did you mean 'height'"):
        check_export(made(Down), X, ExportSettings(dynamic=("hight",), otherwise="fixed"))


class Frozen(nn.Module):
    """Its height becomes a number while it is traced."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([row.mean((1, 2)) for row in x.unbind(2)]).sum(0)


def test_a_refusal_is_one_line_with_the_way_out():
    text = _refusal("Net", OPEN, "why")
    assert "\n" not in text
    assert text.endswith("set export.otherwise = 'fixed'")

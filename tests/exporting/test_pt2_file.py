from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sartor.core import trees
from sartor.core.errors import TargetError
from sartor.core.trees import Tree
from sartor.exporting import export_pt2, load_pt2

X = torch.zeros(1, 3, 8, 8)


def test_a_file_gives_the_networks_outputs_for_any_batch(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten())
    export_pt2(net, X, tmp_path / "new" / "model.pt2")
    assert net.training
    for batch in (1, 3):
        x = torch.randn(batch, 3, 8, 8)
        assert torch.allclose(load_pt2(tmp_path / "new" / "model.pt2").run(x), net.eval()(x), atol=1e-6)


def test_what_cannot_be_traced_is_a_target_error(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(TargetError, match="cannot trace Branches"):
        export_pt2(Branches(), X, tmp_path / "model.pt2")


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="no file"):
        load_pt2(tmp_path / "model.pt2")
    (tmp_path / "model.pt2").write_bytes(b"no")
    with pytest.raises(TargetError, match="cannot read"):
        load_pt2(tmp_path / "model.pt2")


class Heads(nn.Module):
    """Two inputs of different types, a batch norm, a tree out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, image: Tensor, label: Tensor) -> Tree:
        y = self.norm(self.conv(image))
        return Output(y.mean((2, 3)) + label, {"maps": [y], "word": "maps"})


@dataclass
class Output:
    logits: Tensor
    more: Any


LABEL = torch.tensor([[3]])


@pytest.mark.parametrize("example", [(X, LABEL), {"label": LABEL, "image": X}], ids=["tuple", "dict"])
def test_a_tree_comes_back_for_any_batch_and_the_file_runs_without_sartor(example: Any, tmp_path: Path) -> None:
    net, path = Heads(), tmp_path / "model.pt2.part"  # whatever its name
    export_pt2(net, example, path)
    batch = trees.joined([example] * 3)
    expected = trees.call(net.eval(), batch)
    program = load_pt2(path)
    found = program.restored(program.run(program.accepted(batch)))
    assert list(trees.named(found)) == ["logits", "more.maps.0"]
    assert found.more["word"] == "maps"
    assert torch.allclose(found.logits, expected.logits, atol=1e-6)
    own = torch.export.load(path)
    assert {"conv.weight", "norm.running_mean"} <= own.state_dict.keys()
    args, kwargs = trees.arguments(batch)
    assert torch.allclose(own.module()(*args, **kwargs)["logits"], expected.logits, atol=1e-6)
    assert program.signature is not None
    assert {p.name: p.shape for p in program.signature.inputs} == {
        "image": ("batch", 3, 8, 8),
        "label": ("batch", 1),
    }


def test_a_file_of_somebody_else_gives_what_it_gives(tmp_path: Path) -> None:
    class Plain(nn.Module):
        def forward(self, image: Tensor, label: Tensor) -> Tree:
            return [image, {"label": label}]

    torch.export.save(torch.export.export(Plain(), (X,), {"label": LABEL}), tmp_path / "mixed.pt2")
    mixed = load_pt2(tmp_path / "mixed.pt2")
    assert mixed.signature is None  # by position and by name at once: it is taken as it is
    torch.export.save(torch.export.export(Plain(), (X, LABEL)), tmp_path / "plain.pt2")
    program = load_pt2(tmp_path / "plain.pt2")
    found = program.restored(program.run(program.accepted({"label": LABEL, "image": X})))
    assert isinstance(found, list)
    assert torch.equal(found[1]["label"], LABEL)
    with pytest.raises(TargetError, match=r"needs input 'label', int64 of shape \(1, 1\); got float32"):
        program.accepted((X, X))

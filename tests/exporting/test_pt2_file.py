from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sartor.core.errors import TargetError
from sartor.exporting import export_pt2, load_pt2

X = torch.zeros(1, 3, 8, 8)


def test_a_file_gives_the_networks_outputs_for_any_batch(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten())
    export_pt2(net, X, tmp_path / "new" / "model.pt2")
    assert net.training
    for batch in (1, 3):
        x = torch.randn(batch, 3, 8, 8)
        assert torch.allclose(load_pt2(tmp_path / "new" / "model.pt2")(x), net.eval()(x), atol=1e-6)


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

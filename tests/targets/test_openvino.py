import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from sartor.core.errors import MissingExtraError, TargetError
from sartor.targets.openvino import OpenVino


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sartor\[openvino\]'"):
        OpenVino()


def test_threads_and_shapes_are_checked(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="threads"):
        OpenVino(threads=0)
    pytest.importorskip("openvino")
    target = OpenVino(threads=2)
    assert target.describe()["threads"] == "2"
    session = target.prepare(nn.Conv2d(3, 2, 3), torch.zeros(1, 3, 8, 8), tmp_path)
    with pytest.raises(TargetError, match=r"shape \(1, 4, 8, 8\)"):
        session(torch.zeros(1, 4, 8, 8))

from pathlib import Path

import pytest
import torch
from torch import nn

from sartor.core.errors import TargetError
from sartor.exporting import export_onnx
from sartor.targets.onnxruntime import OnnxRuntime
from sartor.timing.memory import peak_memory
from sartor.timing.processes import Source, StrangerError, address
from timing.network import EXAMPLE, file_of
from timing.strange import Restless

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc")


def source(path: Path) -> Source:
    found = address(OnnxRuntime())
    assert found is not None
    return Source(found, path)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"to watch nothing.onnx ended with status 1: .*no file"):
        peak_memory(source(tmp_path / "nothing.onnx"), EXAMPLE)


def test_a_target_that_cannot_be_made_again_is_no_measurement(tmp_path: Path) -> None:
    found = address(Restless())
    assert found is not None
    with pytest.raises(StrangerError):
        peak_memory(Source(found, file_of(tmp_path)), EXAMPLE)


@pytest.mark.slow
def test_peak_memory_grows_with_the_activations(tmp_path: Path) -> None:
    x = torch.zeros(1, 3, 512, 512)
    for width, name in ((64, "wide"), (4, "narrow")):
        net = nn.Sequential(nn.Conv2d(3, width, 1), nn.Sigmoid(), nn.Conv2d(width, 4, 1), nn.AdaptiveAvgPool2d(1))
        export_onnx(net, x, tmp_path / f"{name}.onnx")
    wide, narrow = (peak_memory(source(tmp_path / f"{n}.onnx"), x) for n in ("wide", "narrow"))
    assert wide >= 64 * 512 * 512 * 4  # the feature map has to be somewhere
    assert narrow < wide / 3

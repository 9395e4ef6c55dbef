from pathlib import Path

import pytest
import torch
from torch import nn

from sartor.core.errors import TargetError
from sartor.targets.torch_cuda import TorchCuda, moved


def test_a_gpu_that_is_not_there_is_a_clear_error() -> None:
    with pytest.raises(TargetError, match=r"there is no GPU 64 \(PyTorch sees \d+\); use target torch_cpu"):
        TorchCuda(device=64)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("half", [False, True])
def test_a_gpu_gives_what_the_cpu_gives(half: bool, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    x = torch.randn(1, 3, 8, 8)
    session = TorchCuda(half=half).prepare(net, x, tmp_path)
    assert torch.allclose(session(x), net.eval()(x), atol=2e-2 if half else 1e-4)
    assert next(net.parameters()).device.type == "cpu"
    session.bind(x)()


def test_only_floats_take_the_precision_of_the_target() -> None:
    tree = {"image": torch.zeros(1, dtype=torch.float64), "label": torch.zeros(1, dtype=torch.int64)}
    found = moved(tree, "cpu", torch.float16)
    assert {name: t.dtype for name, t in found.items()} == {"image": torch.float16, "label": torch.int64}

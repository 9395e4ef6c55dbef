from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sartor.core.errors import TargetError
from sartor.targets.torch_cpu import TorchCpu


class Threads(nn.Module):
    """Puts out how many threads PyTorch uses while it runs."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.get_num_threads()


class Fails(nn.Module):
    """On one input only."""

    def forward(self, x: Tensor) -> Tensor:
        if x.isnan().any():
            raise ArithmeticError
        return x


def test_the_number_of_threads_is_set_around_calls_only() -> None:
    before = torch.get_num_threads()
    session = TorchCpu(threads=before + 1).template(Threads(), torch.zeros(1, 2))(Threads())
    x = torch.zeros(1, 2)
    assert session(x)[0, 0] == before + 1
    assert session.bind(x)()[0, 0] == before + 1
    assert torch.get_num_threads() == before


def test_the_number_of_threads_comes_back_after_an_error() -> None:
    before = torch.get_num_threads()
    session = TorchCpu(threads=before + 1).template(Fails(), torch.zeros(1, 2))(Fails())
    session(torch.zeros(1, 2))
    with pytest.raises(TargetError, match=r"cannot run inputs of shapes \(1, 2\): ArithmeticError"):
        session(torch.full((1, 2), torch.nan))
    assert torch.get_num_threads() == before


def test_results_are_of_the_callers_own(tmp_path: Path) -> None:
    session = TorchCpu().prepare(nn.Identity(), torch.zeros(1, 2), tmp_path)
    x = torch.zeros(1, 2)
    session(x).add_(1)
    assert x.sum() == 0


def test_settings_are_described() -> None:
    assert TorchCpu(threads=2).describe()["threads"] == "2"
    assert TorchCpu(compile=True).describe()["runtime"] == "torch (compiled)"
    with pytest.raises(TargetError, match="threads must be at least 1"):
        TorchCpu(threads=0)


def test_a_template_names_inputs_that_do_not_fit() -> None:
    session = TorchCpu().template(nn.Linear(2, 2), torch.zeros(1, 2))(nn.Linear(2, 2))
    with pytest.raises(TargetError, match=r"input 'input', float32 of shape \(batch, 2\); got .*\(1, 3\)"):
        session(torch.zeros(1, 3))

import logging
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from sartor.core.errors import TargetError
from sartor.exporting import evaluating, export_onnx, parity, relative_error

X = torch.zeros(1, 3, 8, 8)


class Fixed:
    """A session that puts out what it is told to."""

    artifact = None

    def __init__(self, module: nn.Module, error: float = 0.0) -> None:
        self.module, self.error = module, error

    def __call__(self, x: Tensor) -> Tensor:
        y = self.module(x).detach()
        return y + self.error * (y.max() - y.min()) * (torch.arange(y.numel()).reshape(y.shape) == 0)


def test_one_file_with_an_open_batch_and_nothing_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    net[1].eval()
    with caplog.at_level(logging.INFO):
        export_onnx(net, X, tmp_path / "deep" / "er" / "model.onnx")
    assert [p.name for p in (tmp_path / "deep" / "er").iterdir()] == ["model.onnx"]
    graph = onnx.load(str(tmp_path / "deep" / "er" / "model.onnx")).graph
    assert [i.name for i in graph.input] == ["input"]
    assert [o.name for o in graph.output] == ["output"]
    sizes = graph.input[0].type.tensor_type.shape.dim
    assert sizes[0].dim_param
    assert [d.dim_value for d in sizes[1:]] == [3, 8, 8]
    assert (net.training, net[0].training, net[1].training) == (True, True, False)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]


class BatchOfOne(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(1, 192)


def test_a_network_that_fixes_its_batch_is_exported_with_it(tmp_path: Path) -> None:
    export_onnx(BatchOfOne(), X, tmp_path / "model.onnx")
    size = onnx.load(str(tmp_path / "model.onnx")).graph.input[0].type.tensor_type.shape.dim[0]
    assert size.dim_value == 1


class Unknown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


def test_an_operator_without_an_onnx_form_is_named(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"cannot export Unknown to ONNX: .*bessel_j0"):
        export_onnx(Unknown(), X, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("scale", [1e-13, 1.0, 1e6])
def test_parity_is_relative_to_the_range_of_the_outputs(scale: float) -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return scale * x.mean((2, 3))

    assert parity(Fixed(Scaled()), Scaled(), X) == 0
    assert parity(Fixed(Scaled(), 1e-4), Scaled(), X) == pytest.approx(1e-4, rel=0.01)
    with pytest.raises(TargetError, match=r"Scaled on Fixed is off by 0\.01"):
        parity(Fixed(Scaled(), 1e-2), Scaled(), X)
    assert parity(Fixed(Scaled(), 1e-2), Scaled(), X, tolerance=0.1) > 1e-3


def test_parity_fails_on_nans_other_shapes_and_several_outputs() -> None:
    class Nan(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * float("nan")

    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    with pytest.raises(TargetError, match="off by inf"):
        parity(Fixed(Nan()), Nan(), X)
    with pytest.raises(TargetError, match="off by inf"):
        parity(Fixed(nn.Flatten()), nn.Identity(), X)
    with pytest.raises(TargetError, match="returns a tuple; it must return one tensor"):
        parity(Fixed(nn.Identity()), Two(), X)


def test_relative_errors_of_constants() -> None:
    ones, zeros = torch.ones(3), torch.zeros(3)
    assert relative_error(zeros, zeros) == 0
    assert relative_error(1.5 * ones, ones) == 0.5  # no range: relative to the size
    assert relative_error(ones, zeros) == float("inf")


def test_eval_mode_lasts_for_the_block_only() -> None:
    net = nn.Sequential(nn.Dropout(), nn.Dropout().eval())

    def fail() -> None:
        with evaluating(net):
            assert not net[0].training
            assert not torch.is_grad_enabled()
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert net[0].training
    assert not net[1].training
    assert torch.is_grad_enabled()

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sartor.core import trees
from sartor.core.errors import TargetError
from sartor.core.rng import torch_rng
from sartor.core.trees import Inputs, Tree
from sartor.exporting import drawn, parity, relative_error
from sartor.exporting.agreement import errors

X = torch.zeros(1, 3, 8, 8)


class Fixed:
    """A session that puts out what it is told to."""

    artifact = None

    def __init__(self, module: nn.Module, error: float = 0.0) -> None:
        self.module, self.error = module, error

    def __call__(self, x: Tensor) -> Tensor:
        y = self.module(x).detach()
        return y + self.error * (y.max() - y.min()) * (torch.arange(y.numel()).reshape(y.shape) == 0)

    def bind(self, inputs: Inputs) -> Callable[[], object]:
        return lambda: self.module(inputs)


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


def test_parity_fails_on_nans_other_shapes() -> None:
    class Nan(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * float("nan")

    with pytest.raises(TargetError, match="off by inf"):
        parity(Fixed(Nan()), Nan(), X)
    with pytest.raises(TargetError, match="off by inf"):
        parity(Fixed(nn.Flatten()), nn.Identity(), X)


def test_relative_errors_of_constants() -> None:
    ones, zeros = torch.ones(3), torch.zeros(3)
    assert relative_error(zeros, zeros) == 0
    assert relative_error(1.5 * ones, ones) == 0.5  # no range: relative to the size
    assert relative_error(ones, zeros) == float("inf")


def test_infinities_that_are_the_same_are_no_difference() -> None:
    low, high = float("-inf"), float("inf")
    assert relative_error(torch.tensor([1.0, low, 3.0]), torch.tensor([1.0, low, 3.0])) == 0
    assert relative_error(torch.tensor([1.0, low, 3.5]), torch.tensor([1.0, low, 3.0])) == 0.25
    for other in (
        torch.tensor([1.0, high, 3.0]),
        torch.tensor([1.0, 2.0, 3.0]),
        torch.tensor([1.0, float("nan"), 3.0]),
    ):
        assert relative_error(torch.tensor([1.0, low, 3.0]), other) == high


class Several(nn.Module):
    def forward(self, image: Tensor, label: Tensor) -> Tree:
        return {"main": image.mean((2, 3)), "aux": [image + label[:, :, None, None], label]}


class Spoilt:
    """A session that spoils one output."""

    artifact = None

    def __init__(self, spoil: Callable[[Any], Any]) -> None:
        self.spoil = spoil

    def __call__(self, inputs: Inputs) -> Tree:
        return self.spoil(trees.call(Several(), inputs))

    def bind(self, inputs: Inputs) -> Callable[[], object]:
        return lambda: self(inputs)


def test_parity_names_the_worst_of_several_outputs() -> None:
    example = (X, torch.tensor([[3]]))
    assert parity(Spoilt(lambda y: y), Several(), example) == 0
    spoils = {
        "main": lambda y: {**y, "main": y["main"] * 1.1},
        r"aux\.0": lambda y: {"main": y["main"] * 1.01, "aux": [y["aux"][0] * 1.5, y["aux"][1]]},
        r"aux\.1": lambda y: {**y, "aux": [y["aux"][0], y["aux"][1] + 1]},
    }
    for name, spoil in spoils.items():
        with pytest.raises(TargetError, match=rf"Several on Spoilt is off by \S+ in output '{name}'"):
            parity(Spoilt(spoil), Several(), example)
    with pytest.raises(TargetError, match=r"must return main, aux\.0, aux\.1, as in PyTorch; it returns main"):
        parity(Spoilt(lambda y: {"main": y["main"]}), Several(), example)


def test_outputs_without_tensors_cannot_be_compared() -> None:
    with pytest.raises(TargetError, match="must return tensors; PyTorch returns a NoneType"):
        errors(None, None)


def test_of_labels_and_masks_the_share_that_differs_counts() -> None:
    assert relative_error(torch.tensor([1, 2, 3, 900]), torch.tensor([1, 2, 3, 4])) == 0.25
    assert relative_error(torch.tensor([True, False]), torch.tensor([True, True])) == 0.5
    assert relative_error(torch.tensor([1 + 1j]), torch.tensor([1 + 0j])) == 1


def test_whole_numbers_are_drawn_from_the_examples_own() -> None:
    example: Inputs = {"image": X.half(), "label": torch.tensor([[3, 7]]), "mask": torch.tensor([[True]])}
    found = drawn(example, torch_rng(0, "test"), batch=64)
    assert isinstance(found, dict)
    assert trees.shapes(found) == {"image": (64, 3, 8, 8), "label": (64, 2), "mask": (64, 1)}
    assert set(found["label"].flatten().tolist()) == {3, 7}
    assert found["mask"].all()
    assert (found["label"].sort(1).values == torch.tensor([3, 7])).all()  # a mask always has what the example's has
    longer = drawn(example, torch_rng(0, "test"), 2, [(1, 3, 4, 4), (1, 5), (1, 3)])
    assert trees.shapes(longer) == {"image": (2, 3, 4, 4), "label": (2, 5), "mask": (2, 3)}
    assert drawn(torch.tensor([4, 5, 6]), torch_rng(0, "test"), 2).shape == (2,)  # type: ignore[union-attr]
    assert found["image"].dtype is torch.float16
    assert found["image"].float().std() == pytest.approx(1, abs=0.1)

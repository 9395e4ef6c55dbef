from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics import MeanSquaredError
from torchmetrics.classification import MulticlassAccuracy

from cnn import same_weights, small_cnn, small_task
from sartor.core.errors import DataError
from sartor.core.metrics import Metric
from sartor.training import channels_apart, check_fits


def test_losses_and_metrics_that_do_not_take_the_output_are_found_before_training():
    task, network = small_task(), small_cnn()
    mean = replace(task, loss=nn.functional.cross_entropy)
    with pytest.raises(DataError, match=r"the loss of the task \w+ gives \(\) .* use reduction = 'none'"):
        check_fits(mean, network)
    with pytest.raises(DataError, match=r"the loss of the task .* fails for an output of"):
        check_fits(replace(task, loss=lambda o, y: o[:, 5]), network)
    with pytest.raises(DataError, match="the distance of the task"):
        check_fits(replace(task, distance=lambda a, b: (a - b).square().mean()), network)
    mse = Metric("mse", "min", make=MeanSquaredError)
    with pytest.raises(DataError, match="metric 'mse' fails for an output of"):
        check_fits(replace(task, metrics=(mse,)), network)
    with pytest.raises(DataError, match="metric 'nothing' needs `make`"):
        check_fits(replace(task, metrics=(Metric("nothing", "max"),)), network)
    each = Metric("each", "max", make=lambda: MulticlassAccuracy(2, average=None))
    with pytest.raises(DataError, match=r"metric 'each' gives \(2,\) for an output of .* must give one number"):
        check_fits(replace(task, metrics=(each,)), network)


def test_a_network_that_fits_is_left_as_it_is():
    network, state = small_cnn(), torch.get_rng_state()
    network[1].eval()
    check_fits(small_task(), network)
    assert same_weights(network, small_cnn())
    assert network.training
    assert not network[1].training
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_classes_and_shapes():
    task = small_task()
    with pytest.raises(DataError, match=r"\(1, 5\), the task has 2 classes"):
        check_fits(task, small_cnn(classes=5))
    with pytest.raises(DataError, match=r"Sequential cannot take .* shape \(1, 1, 8, 8\)"):
        check_fits(task, nn.Sequential(nn.Flatten(), nn.Linear(5, 2)))
    check_fits(replace(task, classes=None), small_cnn(classes=5))


def test_grey_and_colour_apart_name_the_setting():
    task = small_task()
    with pytest.raises(
        DataError, match=r"expects images of 3 channels, the task gives 1 .*; set task\.channels = 3, or"
    ):
        check_fits(task, small_cnn(channels=3))
    assert not channels_apart(task, small_cnn())
    # a first convolution that sees something else than the picture is no mistake
    check_fits(task, nn.Sequential(nn.PixelUnshuffle(2), small_cnn(channels=4)))
    doubled = nn.Sequential(Repeated(), small_cnn(channels=3))
    check_fits(task, doubled)


class Repeated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, 3, -1, -1)


class Odd(nn.Module):
    """A network that returns what `shape` makes of its scores, which also knows whether it is in training mode."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.body, self.shape = small_cnn(), shape

    def forward(self, x: Tensor) -> Any:
        return self.shape(self.body(x), self.training)


SPLIT = {"logits": (8, 2), "hidden": (8, 2)}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            lambda y, _: {"logits": y, "hidden": y},
            r"fails for an output of \{'logits': \(8, 2\), 'hidden': \(8, 2\)\} and a target of \(8,\) of Odd: ",
        ),
        (
            lambda y, training: (y, y) if training else y,
            r"output of \(\(8, 2\), \(8, 2\)\) .* of Odd in training mode: ",
        ),
        (lambda y, _: y.argmax(1), "the loss of the task .* fails for an output of .8,."),
        (lambda y, training: y.detach() if training else y, r"has no gradient .* \(float32\); .* not their argmax"),
        (lambda y, _: y.argmax(1, keepdim=True).expand(-1, 2).float(), "has no gradient .* not their argmax"),
    ],
)
def test_what_the_network_returned_and_the_task_wanted_is_said(shape, message):
    task = replace(small_task(), classes=None)
    with pytest.raises(DataError, match=message) as caught:
        check_fits(task, Odd(shape))
    assert "\n" not in str(caught.value)


def test_a_frozen_network_is_not_run_backward():
    check_fits(small_task(), small_cnn().requires_grad_(False))


class Auxiliary(nn.Module):
    """In training it gives two outputs, and its batch norm learns."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.bn, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = self.head(self.bn(self.body(x)).mean((2, 3)))
        return (y, y) if self.training else y


def test_a_loss_that_does_not_take_what_training_gives_is_found_before_training():
    task, network = small_task(), Auxiliary()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    generator = torch.get_rng_state()
    with pytest.raises(DataError, match=r"the loss of the task \w+ fails for .* of Auxiliary in training mode"):
        check_fits(task, network)
    both = replace(task, loss=lambda o, y: task.loss(o[0] if isinstance(o, tuple) else o, y))
    check_fits(both, network)
    with pytest.raises(DataError, match=r"the distance of the task \w+ fails for .* of Auxiliary in training mode"):
        check_fits(both, network, taught=True)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())
    assert network.training

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from sartor.spaces.widths import Widths
from sartor.surgery.analysis.tracker import operator_name
from sartor.surgery.cutting.layers import bias_is_free, is_layer, patches
from sartor.surgery.cutting.slicing import Engine


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.normed = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.biased, self.bare = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1, bias=False)
        self.same = nn.Conv2d(16, 16, 3, padding="same")
        self.up = nn.ConvTranspose2d(16, 16, 2)
        self.shared, self.head = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        x = self.same(functional.relu(self.bare(self.biased(functional.relu(self.norm(self.normed(x)))))))
        x = self.up(x).mean((2, 3))
        return self.head(self.shared(functional.relu(self.shared(x))))


@pytest.fixture(scope="module")
def engine():
    space = Widths(network=Net().eval(), input_shape=(3, 8, 8))
    return Engine(space._skeleton, space.whole)


def layers(engine):
    skeleton = engine.skeleton
    found = [n for n in skeleton.calls if "conv" in operator_name(n) or operator_name(n) == "linear"]
    return {skeleton.weights[n.args[1].name].rpartition(".")[0]: n for n in found}


def test_layers_have_weights_of_their_own_that_are_used_once(engine):
    known = {name: is_layer(engine.skeleton, node) for name, node in layers(engine).items()}
    assert known == {
        "normed": True,
        "biased": True,
        "bare": True,
        "same": False,
        "up": False,
        "shared": False,
        "head": True,
    }


def test_a_constant_is_free_with_a_bias_or_before_a_batch_norm(engine):
    free = {name: bias_is_free(engine, node) for name, node in layers(engine).items()}
    assert free["normed"]
    assert free["biased"]
    assert not free["bare"]


@pytest.mark.parametrize(
    ("groups", "stride", "padding", "dilation"), [(1, 1, 1, 1), (2, 2, 1, 1), (4, 1, 2, 2), (1, 3, 0, 1)]
)
def test_rows_times_weights_are_the_outputs(groups, stride, padding, dilation):
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 1)
            self.conv = nn.Conv2d(8, 12, 3, stride, padding, dilation, groups, bias=False)
            self.head = nn.Conv2d(12, 2, 1)

        def forward(self, x):
            return self.head(self.conv(self.first(x)))

    net = One().eval()
    space = Widths(network=net, input_shape=(3, 9, 9), divisor=1, multipliers=(0.5,))
    named = space._skeleton.weights
    node = next(
        n for n in space._skeleton.calls if operator_name(n) == "conv2d" and named[n.args[1].name] == "conv.weight"
    )
    x = torch.randn(2, 8, 9, 9)
    with torch.no_grad():
        y = net.conv(x)
    pick = torch.arange(y[:, 0].numel())
    inputs, wanted = patches(node, x, y, net.conv.weight, pick)
    weight = net.conv.weight.detach().reshape(groups, 12 // groups, -1)
    torch.testing.assert_close(inputs @ weight.mT, wanted, rtol=1e-4, atol=1e-5)

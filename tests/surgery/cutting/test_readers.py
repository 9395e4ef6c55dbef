from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from sartor.core.rng import global_seed
from sartor.spaces.widths import Widths
from sartor.surgery.cutting.readers import projected, readers, sampled_labels
from sartor.surgery.cutting.slicing import Engine


def two_layers(seed=0):
    with global_seed(seed):
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 5)).eval()


def found(net, x, pull=sampled_labels, shape=(6,)):
    space = Widths(network=net, input_shape=shape, divisor=1, importance="none")
    return readers(Engine(space._skeleton, space.whole), x, pull)


def test_rows_are_what_the_layers_read():
    net, x = two_layers(), torch.randn(40, 6)
    first, second = found(net, x)
    assert torch.cat(first.rows, 1).shape == (1, 24, 6)
    rows = torch.cat(second.rows, 1)[0]
    hidden = functional.relu(net[0](x)).detach()
    assert all((hidden - row).abs().amax(1).min() < 1e-5 for row in rows)
    assert (second.groups, second.taps, second.free) == (1, 1, True)
    torch.testing.assert_close(second.weight[0].float(), net[2].weight.detach())


def test_slopes_are_squared_gradients_of_the_outputs():
    """Of the expected log-likelihood they are p (1 - p) in the last layer, for labels drawn from the network."""
    net, x = two_layers(), torch.randn(4000, 6)
    slopes = found(net, x)[1].slopes / len(x)
    p = net(x).softmax(1).detach().double()
    torch.testing.assert_close(slopes, (p * (1 - p)).mean(0), rtol=0.1, atol=0.0)


def test_a_projection_weighs_outputs_alike_whatever_their_scale():
    net, x = two_layers(), torch.randn(3000, 6)
    small = found(net, x, projected)[1].slopes
    with torch.no_grad():
        net[2].weight.mul_(100)
        net[2].bias.mul_(100)
    large = found(net, x, projected)[1].slopes
    torch.testing.assert_close(small, large * 100**2, rtol=1e-3, atol=0.0)
    assert small.min() > 0.8 * small.max()


def test_changes_in_place_behind_a_layer_do_no_harm():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 3), nn.Flatten()).eval()
    first, second = found(net, torch.randn(8, 3, 8, 8), projected, (3, 8, 8))
    assert first.slopes.shape == (8,)
    assert (second.taps, second.weight.shape) == (9, (1, 4, 72))
    assert (first.slopes > 0).any()
    assert all(p.grad is None for p in net.parameters())


def test_outputs_without_gradients_give_no_readers():
    class Hard(nn.Sequential):
        def forward(self, x):
            return super().forward(x).argmax(1)

    net = Hard(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 5)).eval()
    assert found(net, torch.randn(8, 6), projected) == []


def test_sums_do_not_depend_on_how_many_pass_at_once(monkeypatch):
    net, x = two_layers(), torch.randn(64, 6)
    one = found(net, x, lambda y, _: y.square().sum())
    monkeypatch.setattr("sartor.surgery.cutting.readers.CHUNK", 6 * 4)
    several = found(net, x, lambda y, _: y.square().sum())
    assert len(several[0].rows) > len(one[0].rows) == 1
    for a, b in zip(one, several, strict=True):
        torch.testing.assert_close(a.slopes, b.slopes)

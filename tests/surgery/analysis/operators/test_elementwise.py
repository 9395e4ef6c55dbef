from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional


def test_a_sum_couples_its_terms(check, net):
    def forward(self, x):
        x = self.first(x)
        return self.last(x + self.inner(x.relu()))

    layers = {"first": nn.Conv2d(3, 8, 1), "inner": nn.Conv2d(8, 8, 1), "last": nn.Conv2d(8, 2, 1)}
    coupling = check(net(forward, **layers), (3, 4, 4), groups=[8])
    assert coupling.groups[0].layers == ("first", "inner")


def test_a_gate_per_channel_goes_with_the_channel(check, net):
    def forward(self, x):
        x = self.first(x)
        gate = self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.last(x * gate)

    layers = {"first": nn.Conv2d(3, 8, 1), "down": nn.Conv2d(8, 4, 1), "up": nn.Conv2d(4, 8, 1)}
    check(net(forward, **layers, last=nn.Conv2d(8, 2, 1)), (3, 4, 4), groups=[8, 4])


def test_weights_of_their_own(check, net):
    def forward(self, x):
        return self.last((self.first(x) * self.scale + self.shift).sigmoid())

    layers = {"scale": nn.Parameter(torch.ones(1, 8, 1, 1)), "shift": nn.Parameter(torch.ones(8, 1, 1))}
    coupling = check(net(forward, first=nn.Conv2d(3, 8, 1), last=nn.Conv2d(8, 2, 1), **layers), (3, 4, 4), groups=[8])
    units = coupling.tracker.units
    assert all(units.resolve(dict(coupling.weights())[n][d]) is not None for n, d in (("scale", 1), ("shift", 0)))


@pytest.mark.parametrize(
    "middle",
    [
        lambda x: functional.gelu(x) * torch.where(x > 0, x, 0.1 * x),
        lambda x: x.clamp(-1, 2).masked_fill(x > 1, 0.5),
        lambda x: functional.hardswish(x) - functional.silu(x) / (x.abs() + 1),
        lambda x: functional.leaky_relu(x, 0.2).pow(2),
        lambda x: torch.lerp(x, x.tanh(), 0.3).exp(),
        lambda x: functional.dropout(x, 0.5, training=False).to(torch.float64).contiguous(),
        torch.erfc,  # no rule of its own, but pointwise
    ],
)
def test_entry_by_entry(check, net, middle):
    def forward(self, x):
        return self.last(middle(self.first(x)))

    check(net(forward, first=nn.Conv2d(3, 8, 1), last=nn.Conv2d(8, 2, 1)), (3, 4, 4), groups=[8])


def test_prelu_has_one_slope_per_channel(check):
    check(nn.Sequential(nn.Conv2d(3, 8, 1), nn.PReLU(8), nn.Conv2d(8, 2, 1)), (3, 4, 4), groups=[8])


def test_an_operator_without_a_rule_freezes_what_it_touches(check, net):
    def forward(self, x):
        x = self.first(x)
        return self.last(self.other(torch.renorm(x, 2, 1, 5.0)) + self.third(x))

    layers = {"first": nn.Conv2d(3, 8, 1), "other": nn.Conv2d(8, 4, 1), "third": nn.Conv2d(8, 4, 1)}
    coupling = check(net(forward, **layers, last=nn.Conv2d(4, 2, 1)), (3, 4, 4), groups=[4])
    assert "no rule for renorm" in next(f.reason for f in coupling.fixed if f.layer == "first")


@pytest.mark.parametrize("function", [torch.max, torch.min, torch.maximum])
def test_the_larger_of_two_halves(check, net, function):
    def forward(self, x):
        return self.last(function(*self.first(x).chunk(2, 1)))

    check(net(forward, first=nn.Conv2d(3, 16, 1), last=nn.Conv2d(8, 2, 1)), (3, 4, 4), groups=[8])

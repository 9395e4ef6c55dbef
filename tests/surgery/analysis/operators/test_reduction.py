from __future__ import annotations

import pytest
import torch
from torch import nn


def _run(check, net, middle, **options):
    def forward(self, x):
        return self.last(middle(self.first(x)))

    return check(
        net(forward, first=nn.Conv2d(3, 8, 1), last=nn.Conv2d(options.pop("last", 8), 2, 1)), (3, 4, 4), **options
    )


@pytest.mark.parametrize(
    "middle",
    [
        lambda x: x.mean((2, 3), keepdim=True),
        lambda x: x.sum(3).unsqueeze(3),
        lambda x: x.amax((2, 3), keepdim=True),
        lambda x: x.softmax(2),
        lambda x: x.max(3)[0].unsqueeze(3),
        lambda x: x.flatten(2).softmax(-1).unflatten(2, (4, 4)),
        lambda x: x / (1 + x.norm(dim=(2, 3), keepdim=True)),
        lambda x: x.var((2, 3), keepdim=True),
        lambda x: x.std(3, keepdim=True),
        lambda x: torch.var_mean(x, (2, 3), keepdim=True)[0],
        lambda x: x.cumsum(2),
    ],
)
def test_positions_are_reduced(check, net, middle):
    _run(check, net, middle, groups=[8])


@pytest.mark.parametrize("middle", [lambda x: x.sum(1, keepdim=True), lambda x: x.norm(dim=1, keepdim=True)])
def test_channels_are_summed_up(check, net, middle):
    _run(check, net, middle, groups=[8], last=1)


def test_a_mean_counts_the_channels_that_are_left(check, net):
    _run(check, net, lambda x: x.mean(1, keepdim=True), groups=[8], last=1, statistics=True)


@pytest.mark.parametrize(
    "middle",
    [
        lambda x: x.var(1, keepdim=True),
        lambda x: x.std(1).unsqueeze(1),
        lambda x: torch.var_mean(x, 1, correction=0, keepdim=True)[0],
        lambda x: (x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-5)).sum(1, keepdim=True),
    ],
)
def test_statistics_count_the_channels_that_are_left(check, net, middle):
    _run(check, net, middle, last=1, statistics=True, groups=[8])


@pytest.mark.parametrize(
    "middle", [lambda x: x.softmax(1), lambda x: x.cumsum(1), lambda x: x - x.amax(1, keepdim=True)]
)
def test_channels_that_are_compared_stay(check, net, middle):
    coupling = _run(check, net, middle, groups=[], least=0)
    assert any("by" in f.reason and f.layer == "first" for f in coupling.fixed)

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(8), nn.InstanceNorm2d(8, affine=True), nn.InstanceNorm2d(8)])
def test_one_statistic_per_channel(check, norm):
    check(nn.Sequential(nn.Conv2d(3, 8, 1), norm, nn.ReLU(), nn.Conv2d(8, 2, 1)), (3, 4, 4), groups=[8])


@pytest.mark.parametrize("norm", [nn.LayerNorm(8), nn.LayerNorm(8, elementwise_affine=False), nn.RMSNorm(8)])
def test_statistics_count_the_channels_that_are_left(check, norm):
    check(nn.Sequential(nn.Linear(3, 8), norm, nn.Linear(8, 2)), (3,), groups=[8], statistics=True)


def test_a_layer_norm_over_channels_and_positions(check):
    check(nn.Sequential(nn.Conv2d(3, 8, 1), nn.LayerNorm((8, 4, 4)), nn.Conv2d(8, 2, 1)), (3, 4, 4), statistics=True)


def test_a_standardised_weight(check, net):
    def forward(self, x):
        weight = self.last.weight
        whole = functional.batch_norm(weight.reshape(1, 2, -1), None, None, self.gain, training=True)
        return functional.conv2d(self.first(x), whole.reshape_as(weight))

    layers = {"first": nn.Conv2d(3, 8, 1), "last": nn.Conv2d(8, 2, 3), "gain": nn.Parameter(torch.ones(2))}
    check(net(forward, **layers), (3, 4, 4), groups=[8], statistics=True)


@pytest.mark.parametrize(("groups", "sizes"), [(4, [4]), (2, [4]), (1, [8]), (8, [8])])
def test_groups_of_channels(check, groups, sizes):
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(groups, 8), nn.Conv2d(8, 2, 1))
    check(net, (3, 4, 4), groups=sizes, statistics=True)


def test_statistics_over_positions_alone_are_those_of_the_whole_network(check):
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.LayerNorm((4, 4)), nn.Conv2d(8, 2, 1))
    check(net, (3, 4, 4), groups=[8])

from __future__ import annotations

import pytest
from torch import nn


def test_a_dense_chain_has_one_group_per_inner_layer(check):
    coupling = check(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 3)), (3, 8, 8))
    assert [(g.name, g.size) for g in coupling.groups] == [("0", 8), ("2", 6)]
    assert [f.layer for f in coupling.fixed] == ["3"]


def test_a_depthwise_convolution_belongs_to_what_it_reads(check):
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 2, 1))
    coupling = check(net, (3, 8, 8), groups=[8])
    assert coupling.groups[0].layers == ("0", "1")


@pytest.mark.parametrize(
    ("channels", "groups", "out", "sizes"),
    [
        (8, 4, 8, [4]),  # whole groups go
        (8, 2, 8, [4, 4]),  # as many channels of both groups go, inputs and outputs apart
        (8, 8, 16, [8]),  # two outputs per channel
        (12, 4, 4, [4]),
    ],
)
def test_grouped_convolutions(check, channels, groups, out, sizes):
    net = nn.Sequential(nn.Conv2d(3, channels, 1), nn.Conv2d(channels, out, 3, groups=groups), nn.Conv2d(out, 2, 1))
    check(net, (3, 8, 8), groups=sizes)


@pytest.mark.parametrize(("groups", "sizes"), [(1, [8, 6]), (2, [4, 3]), (4, [4])])
def test_transposed_convolutions(check, groups, sizes):
    out = 6 if groups < 4 else 8
    layers = (nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, out, 2, stride=2, groups=groups), nn.Conv2d(out, 2, 1))
    check(nn.Sequential(*layers), (3, 6, 6), groups=sizes)


def test_a_transposed_depthwise_convolution(check):
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 8, 2, groups=8), nn.Conv2d(8, 2, 1))
    check(net, (3, 6, 6), groups=[8])


@pytest.mark.parametrize(("conv", "shape"), [(nn.Conv1d, (3, 9)), (nn.Conv3d, (3, 4, 4, 4))])
def test_other_ranks(check, conv, shape):
    check(nn.Sequential(conv(3, 8, 3), nn.ReLU(), conv(8, 2, 1)), shape, groups=[8])


def test_a_convolution_whose_channels_are_positions_is_not_cut(check, net):
    def forward(self, x):
        return self.last(self.first(x).flatten(2).unsqueeze(1))  # channels become the height of an image

    check(net(forward, first=nn.Conv2d(3, 8, 1), last=nn.Conv2d(1, 2, 3)), (3, 4, 4), groups=[], least=0)

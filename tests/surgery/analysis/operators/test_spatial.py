from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional


def _run(check, net, middle, inner=8, last=8, **options):
    def forward(self, x):
        return self.last(middle(self.first(x)))

    return check(net(forward, first=nn.Conv2d(3, inner, 1), last=nn.Conv2d(last, 2, 1)), (3, 8, 8), **options)


@pytest.mark.parametrize(
    "middle",
    [
        lambda x: functional.max_pool2d(x, 2),
        lambda x: functional.avg_pool2d(x, 3, 2, 1),
        lambda x: functional.adaptive_avg_pool2d(x, 3),
        lambda x: functional.adaptive_avg_pool2d(x, 1),
        lambda x: functional.adaptive_max_pool2d(x, 2),
        lambda x: functional.max_pool2d(x, 2, return_indices=True)[0],
        lambda x: functional.interpolate(x, scale_factor=2),
        lambda x: functional.interpolate(x, size=(5, 7), mode="bilinear"),
        lambda x: functional.interpolate(x, scale_factor=0.5, mode="bicubic"),
        lambda x: functional.pad(x, (1, 2, 0, 1)),
        lambda x: functional.pad(x, (1, 1, 1, 1), mode="reflect"),
        lambda x: functional.pad(x, (1, 1, 1, 1), mode="replicate"),
    ],
)
def test_channels_pass(check, net, middle):
    _run(check, net, middle, groups=[8])


def test_pooling_of_one_dimension(check):
    layers = (nn.Conv1d(3, 8, 1), nn.MaxPool1d(2), nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(1), nn.Conv1d(8, 2, 1))
    check(nn.Sequential(*layers), (3, 8), groups=[8])


def test_zero_channels_are_put_around(check, net):
    def forward(self, x):
        x = self.first(x)
        return self.last(functional.pad(x, (0, 0, 0, 0, 1, 3)) + self.other(x))

    layers = {"first": nn.Conv2d(3, 4, 1), "other": nn.Conv2d(4, 8, 1), "last": nn.Conv2d(8, 2, 1)}
    coupling = check(net(forward, **layers), (3, 4, 4))
    assert max(g.size for g in coupling.groups) >= 4


def test_pixels_are_shuffled(check, net):
    _run(check, net, lambda x: functional.pixel_shuffle(x, 2), inner=16, last=4, groups=[4])


def test_pixels_are_shuffled_back(check, net):
    _run(check, net, lambda x: functional.pixel_unshuffle(x, 2), inner=4, last=16, groups=[4])


def test_patches_and_back(check, net):
    _run(check, net, lambda x: functional.fold(functional.unfold(x, 2, stride=2), (8, 8), 2, stride=2), groups=[8])


def test_places_that_the_network_computes_itself(check, net):
    def forward(self, x):
        theta = self.pose(torch.relu(self.look(x)).mean((2, 3))).view(-1, 2, 3)
        y = self.first(x)
        grid = functional.affine_grid(theta, y.size(), align_corners=False)
        return self.last(functional.grid_sample(y, grid, align_corners=False))

    layers = {"look": nn.Conv2d(3, 12, 1), "pose": nn.Linear(12, 6), "first": nn.Conv2d(3, 8, 1)}
    check(net(forward, **layers, last=nn.Conv2d(8, 2, 1)), (3, 8, 8), groups=[8, 12])

from __future__ import annotations

import torch

from sartor import archs
from sartor.spaces.digits_widths import DigitsWidths


def test_1024_networks_with_names():
    space = DigitsWidths()
    names = {space.key(arch) for arch in archs.enumerate_all(space)}
    assert len(names) == 1024
    assert space.key((0, 1, 2, 3, 0)) == "4:12:16:24:4"


def test_the_strides():
    network = DigitsWidths(classes=3, size=20, in_channels=3).build((0, 1, 2, 3, 0)).eval()
    sizes = []
    for name in ("conv0", "conv1", "conv2", "conv3", "conv4"):
        getattr(network, name).register_forward_hook(lambda _m, _x, y: sizes.append(tuple(y.shape[1:])))
    assert network(torch.zeros(2, 3, 20, 20)).shape == (2, 3)
    assert sizes == [(4, 20, 20), (12, 20, 20), (16, 10, 10), (24, 10, 10), (4, 5, 5)]


def test_scaling():
    assert DigitsWidths().scaled(0.6) == (2, 2, 2, 2, 2)

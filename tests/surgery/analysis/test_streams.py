from __future__ import annotations

import torch
from torch import nn

from sartor.spaces.widths import Widths
from sartor.surgery.analysis.streams import streams


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.place = nn.Conv2d(3, 16, 1), nn.Parameter(torch.zeros(1, 16, 8, 8))
        self.wide, self.narrow = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 16, 1)
        self.last, self.shift = nn.Conv2d(16, 24, 1), nn.Parameter(torch.zeros(1, 24, 1, 1))
        self.head = nn.Conv2d(24, 4, 1)

    def forward(self, x):
        x = self.stem(x) + self.place
        x = x + self.narrow(self.wide(x).relu())
        return self.head((self.last(x) + self.shift).relu())


def test_sums_of_computed_tensors_are_streams_and_biases_are_not():
    space = Widths(network=Net().eval(), input_shape=(3, 8, 8))
    found = streams(space._skeleton)
    named = {g.name: any(int(u) in found for f in g.families for u in f) for g in space.coupling.groups}
    assert named == {"stem": True, "wide": False, "last": False}


def test_a_plain_network_has_none():
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval()
    space = Widths(network=net, input_shape=(3, 8, 8))
    own = {int(u) for g in space.coupling.groups for f in g.families for u in f}
    assert not own & streams(space._skeleton)

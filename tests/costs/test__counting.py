from __future__ import annotations

import torch
from torch import nn

from sartor.costs._counting import observe


def test_every_use_is_seen_in_order():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.conv(self.conv(x)).mean((2, 3)))

    net = Twice().double()
    uses = observe(net, (3, 5, 7))
    assert [u.module for u in uses] == [net.conv, net.conv, net.head]
    assert [tuple(u.after) for u in uses] == [(1, 3, 5, 7), (1, 3, 5, 7), (1, 2)]


def test_nothing_is_computed_on_the_meta_device():
    with torch.device("meta"):
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    assert [tuple(u.after) for u in observe(net, (3, 1000, 1000))] == [(1, 8, 998, 998)]

from __future__ import annotations

import pytest
import torch
from torch import nn


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.new_zeros(x.shape),
        lambda x: torch.ones(1, 8, 1, 1, dtype=x.dtype),
        lambda x: torch.full((x.shape[0], 8, 4, 4), 0.5, dtype=x.dtype),
        torch.zeros_like,
        lambda x: x.new_ones(8, 1, 1),
    ],
)
def test_constants_are_as_large_as_what_they_meet(check, net, make):
    def forward(self, x):
        x = self.first(x)
        return self.last(x + make(x))

    check(net(forward, first=nn.Conv2d(3, 8, 1), last=nn.Conv2d(8, 2, 1)), (3, 4, 4), groups=[8])


def test_numbers_in_order_keep_what_they_meet(check, net):
    def forward(self, x):
        return self.last(self.first(x) * torch.arange(8, dtype=x.dtype).reshape(1, 8, 1, 1))

    check(net(forward, first=nn.Conv2d(3, 8, 1), last=nn.Conv2d(8, 2, 1)), (3, 4, 4), groups=[], least=0)


def test_positions_may_be_numbered(check, net):
    def forward(self, x):
        return self.last(self.first(x) + torch.linspace(0, 1, 4, dtype=x.dtype))

    check(net(forward, first=nn.Conv2d(3, 8, 1), last=nn.Conv2d(8, 2, 1)), (3, 4, 4), groups=[8])

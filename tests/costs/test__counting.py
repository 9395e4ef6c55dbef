from __future__ import annotations

import pytest
import torch
from torch import nn

from sartor.core.errors import ConfigError
from sartor.costs._counting import observe, one_example
from several import CASES


def test_every_use_is_seen_in_order():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.conv(self.conv(x)).mean((2, 3)))

    net = Twice().double()
    uses = observe(net, torch.zeros(1, 3, 5, 7, dtype=torch.double))
    assert [u.module for u in uses] == [net.conv, net.conv, net.head]
    assert [tuple(u.after) for u in uses] == [(1, 3, 5, 7), (1, 3, 5, 7), (1, 2)]


def test_nothing_is_computed_on_the_meta_device():
    with torch.device("meta"):
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    assert [tuple(u.after) for u in observe(net, torch.zeros(1, 3, 1000, 1000, device="meta"))] == [(1, 8, 998, 998)]


def test_several_inputs_are_called_as_the_network_wants_them():
    case = CASES["words and image"]
    net = case.network()
    uses = observe(net, case.batch(1))
    assert [u.module for u in uses] == [net.up, net.stem, net.body, net.head]


def test_an_example_is_what_was_given_or_what_the_space_has():
    class Known:
        input_shape = None
        example = {"ids": torch.full((1, 6), 3), "image": torch.ones(1, 3, 8, 8)}

    class Sized:
        example, input_shape = None, (3, 4, 5)

    class Silent:
        example = input_shape = None

    net = nn.Linear(3, 2).double()
    found = one_example(Known(), None, net, "costs")
    assert found["ids"].tolist() == [[3] * 6]
    assert found["image"].dtype == torch.double
    assert one_example(Sized(), None, net, "costs").shape == (1, 3, 4, 5)
    given = one_example(Known(), [(3, 4, 4), (7,)], net, "costs")
    assert [tuple(x.shape) for x in given] == [(1, 3, 4, 4), (1, 7)]
    with pytest.raises(ConfigError, match="needs the shape of an input"):
        one_example(Silent(), None, net, nn.Linear(1, 1))

from __future__ import annotations

import pytest
import torch

from sartor import archs
from sartor.core.errors import ConfigError
from sartor.spaces.tiny import Tiny


def test_it_is_tiny_enough_for_brute_force():
    space = Tiny()
    assert len(list(archs.enumerate_all(space))) == 64
    assert sum(p.numel() for p in space.build(archs.largest(space)).parameters()) < 2000


def test_settings_reach_the_network():
    space = Tiny(classes=3, size=5, in_channels=2, depth=4, widths=(6, 2))
    assert [c.options for c in space.choices] == [(2, 6)] * 4
    network = space.build((0, 1, 0, 1))
    assert network(torch.randn(2, *space.input_shape)).shape == (2, 3)
    assert [len(network.get_submodule(f"{c.name}.norm").weight) for c in space.choices] == [2, 6, 2, 6]


def test_no_layers_is_an_error():
    with pytest.raises(ConfigError, match="depth"):
        Tiny(depth=0)

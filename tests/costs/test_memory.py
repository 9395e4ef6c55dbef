from __future__ import annotations

import pytest

from sartor.core.errors import ConfigError
from sartor.costs.memory import Memory
from sartor.spaces.resnet_widths import ResnetWidths
from sartor.spaces.tiny import Tiny


def terms(tables):
    parts = [t for t in (*tables.unary, *tables.pairwise.values()) if t.abs().sum()]
    return len(parts) + (tables.constant != 0)


def test_by_hand():
    """8x8 inputs, one channel; conv0 16 wide keeps the size, separable1 halves it."""
    memory = Memory(Tiny(widths=(4, 16)), bytes_per_value=1)
    assert memory([(1, 1, 1)]).tolist() == [16 * 64 + 16 * 16]  # the depthwise step of separable1
    assert memory([(0, 0, 0)]).tolist() == [(1 + 4) * 64]  # conv0
    assert Memory(Tiny(), bytes_per_value=2)([(3, 3, 3)]).tolist() == [2 * 1280]


def test_every_step_of_a_chain_is_a_single_term():
    peaks = Memory(Tiny()).terms()
    assert len(peaks) == len(Tiny().layers())
    assert [terms(t) for t in peaks] == [1, 1, 1, 1]


def test_a_held_residual_joins_the_term_of_its_layer_where_it_can():
    space = ResnetWidths(blocks=(2, 1), widths=(8, 16))
    found = {layer.name: terms(t) for layer, t in zip(space.layers(), Memory(space).terms(), strict=True)}
    assert found.pop("layer2.0.conv2") == 2  # input, output and held feature map have three choices
    assert set(found.values()) == {1}


def test_wrong_settings_are_explained():
    with pytest.raises(ConfigError, match="bytes_per_value"):
        Memory(Tiny(), bytes_per_value=0)

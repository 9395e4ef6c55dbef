from __future__ import annotations

import pytest
import torch
from torch import nn

from sartor.core.errors import ConfigError
from sartor.core.records import Axis, Choice, LayerKey
from sartor.spaces import _nats as nats


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_a_cell_by_hand():
    """Node 1 = conv(x), node 2 = x + pool(node 1), node 3 = nothing + conv1x1(node 1) + node 2."""
    cell = nats.Cell((*["nor_conv_3x3", nats.SKIP, nats.POOL], nats.NONE, "nor_conv_1x1", nats.SKIP), 6, 6).eval()
    x = torch.randn(2, 6, 5, 5)
    one = cell.layers[0](x)
    pooled = nn.functional.avg_pool2d(one, 3, 1, 1, count_include_pad=False)
    torch.testing.assert_close(cell(x), cell.layers[4](one) + (x + pooled))
    assert count(cell) == 6 * 6 * 10 + 2 * 12


def test_an_operation_is_relu_convolution_norm():
    op = nats.relu_conv_norm(3, 4, 3).eval()
    x, (_, conv, norm) = torch.randn(1, 3, 6, 6), op.op
    torch.testing.assert_close(op(x), norm(conv(x.clamp(min=0))))


@pytest.mark.parametrize("operations", [(nats.NONE,) * 6, ("nor_conv_3x3",) * 3 + (nats.NONE,) * 3])
def test_a_cell_without_a_way_through_is_nothing(operations):
    assert torch.equal(nats.Cell(operations, 4, 4)(torch.randn(2, 4, 3, 3)), torch.zeros(2, 4, 3, 3))


def test_a_skip_between_widths_is_a_convolution():
    skip = nats.Cell((nats.SKIP,) * 6, 3, 5)
    assert [count(layer) for layer in skip.layers] == [3 * 5 + 10, 3 * 5 + 10, 0, 3 * 5 + 10, 0, 0]
    assert nats.params(LayerKey("skip", (4, 4), 1, 1, False, 3, 5)) == 25
    assert nats.macs(LayerKey("skip", (4, 4), 1, 1, False, 3, 5)) == 3 * 5 * 16
    assert nats.params(LayerKey("skip", (4, 4), 1, 1, False, 5, 5)) == 0


def test_costs_of_single_layers():
    assert nats.params(LayerKey("conv", (8, 8), 3, 2, False, 3, 5)) == 9 * 15 + 10
    assert nats.params(LayerKey("shortcut", (8, 8), 1, 1, False, 3, 5)) == 15  # no norm
    assert nats.params(LayerKey("linear", (1, 1), 1, 1, True, 3, 5)) == 15 + 5 + 6  # and the norm before it
    assert nats.macs(LayerKey("conv", (7, 7), 3, 2, False, 3, 5)) == 9 * 15 * 16
    assert nats.macs(LayerKey("linear", (1, 1), 1, 1, True, 3, 5)) == 20  # and the bias, as published
    assert nats.macs(LayerKey("pool", (8, 8), 2, 2, False, 3, 3)) == 0


def test_maps_alive_are_a_single_term_where_they_can_be():
    choices = tuple(Choice(f"c{i}", (2, 4)) for i in range(3))
    a, b, c, fixed = Axis((2, 4), 0), Axis((2, 4), 1), Axis((2, 4), 2), Axis((3,))
    one, two, three = (nats.alive(choices, (fixed, 2), *maps) for maps in ([(b, 1)], [(b, 1), (c, 3)], [(a, 1)] * 2))
    assert one([(0, 0, 0), (0, 1, 0)]).tolist() == [12 + 2, 12 + 4]
    assert (one.constant, len(one.pairwise)) == (0, 0)
    assert two([(0, 0, 0), (0, 1, 1)]).tolist() == [12 + 2 + 18, 12 + 4 + 36]
    assert (two.constant, list(two.pairwise)) == (0, [(1, 2)])
    assert three([(1, 0, 0)]).tolist() == [12 + 8]
    assert nats.alive(choices, (fixed, 2))([(0, 0, 0)]).tolist() == [12]
    assert nats.alive(choices, (a, 1), (b, 1), (c, 1))([(0, 1, 1)]).tolist() == [10]


@pytest.mark.parametrize("settings", [(0, 8, 3), (2, 3, 3), (2, 8, 0)])
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError, match="at least"):
        nats.check(*settings)

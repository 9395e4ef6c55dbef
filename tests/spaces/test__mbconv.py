from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from contracts.test_costs import flops
from sartor.core.errors import ConfigError
from sartor.spaces._mbconv import FIRST, PRESETS, Menu, Network, Operation, Residual, Slot, operators, runs


def test_operations_are_called_by_what_differs():
    names = list(map(str, Menu((3, 5), (3, 1.5), True, ("hswish", "relu6")).operations()))
    assert names[:4] == ["k3e1.5", "k3e1.5-hswish", "k3e1.5-se", "k3e1.5-se-hswish"]
    assert len(names) == len(set(names)) == 2 * 2 * 2 * 2
    assert names[-1] == "k5e3-se-hswish"
    assert list(map(str, Menu((7,), (6,), False, ("hswish",)).operations())) == ["k7e6-hswish"]


@pytest.mark.parametrize("name", PRESETS)
def test_places_form_a_chain(name):
    plan = PRESETS[name]
    slots = plan.slots()
    assert len(slots) == 1 + sum(plan.blocks)
    assert all(a.c_out == b.c_in for a, b in pairwise(slots))
    net = Network(plan, [Residual(s.block(Operation(2, 3))) for s in slots[1:]])
    sizes = []
    for block in [*net.blocks, net.feature_mix_layer]:
        block.register_forward_hook(lambda m, i, y: sizes.append((i[0].shape[1], i[0].shape[2])))
    net.eval()(torch.zeros(1, plan.in_channels, plan.size, plan.size))
    assert sizes == [*((s.c_in, s.size) for s in slots), (plan.widths[-1], plan.last)]


@pytest.mark.parametrize("operation", [FIRST, Operation(3, 5), Operation(2.5, 3, True, "hswish")])
@pytest.mark.parametrize("slot", [Slot(1, 0, 6, 10, 2, 9), Slot(1, 1, 6, 6, 1, 8)])
def test_a_block_costs_what_it_says(slot, operation):
    block = slot.block(operation)
    module, x = Residual(block), torch.randn(1, slot.c_in, slot.size, slot.size)
    assert module.residual == slot.optional
    assert block.macs(slot.size) == flops(module, x)
    assert block.params() == sum(p.numel() for p in module.parameters())


def test_a_block_is_what_it_is_called():
    slot = Slot(1, 1, 8, 8, 1, 6)
    module, bare = (Residual(slot.block(o)).eval() for o in (Operation(3, 5, True, "hswish"), Operation(3, 5)))
    assert [n for n, _ in module.mobile_inverted_conv.named_children()] == [
        *("inverted_bottleneck", "depth_conv", "squeeze", "point_linear")
    ]
    assert {type(m) for m in module.modules()} >= {nn.Hardswish}
    assert not any(isinstance(m, nn.ReLU6) for m in module.modules())
    assert {type(m) for m in bare.modules()} == {Residual, nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.ReLU6}
    assert {m.eps for m in bare.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    layers = bare.mobile_inverted_conv
    assert layers.depth_conv.conv.kernel_size == (5, 5)
    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(bare(x), x + layers.point_linear(layers.depth_conv(layers.inverted_bottleneck(x))))


def test_runs_are_blocks_of_one_shape():
    same = lambda depth: Slot(1, depth, 8, 8, 1, 6)  # noqa: E731
    other = Slot(2, 0, 8, 9, 1, 6)
    assert list(runs([same(0), same(1), other, same(2), same(3), other])) == [range(2), range(3, 5)]
    assert list(runs([other, other])) == []


def test_equal_places_share_their_operators():
    slots = PRESETS["small"].slots()[1:]
    found, make = operators(PRESETS["small"], [(None, Operation(3, 3)) if s.optional else (FIRST,) for s in slots])
    keys = [option[1][0].key for s, option in zip(slots, found.options, strict=True) if s.optional]
    assert len(keys) == 5
    assert len(set(keys)) == 3  # one per stage
    assert make.keys() == {o.key for o in found.all()}
    assert found.options[1][0] == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (((3, 4), (3,), False, ("relu6",)), "kernels must be odd"),
        (((), (3,), False, ("relu6",)), "kernels must be odd"),
        (((3,), (0.5,), False, ("relu6",)), "expansions must be at least 1"),
        (((3,), (3,), False, ("relu",)), "activations are relu6 and hswish"),
    ],
)
def test_nothing_else_is_on_offer(settings, message):
    with pytest.raises(ConfigError, match=message):
        Menu(*settings)

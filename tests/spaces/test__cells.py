from __future__ import annotations

import pytest
import torch
from torch import nn

from sartor.core.errors import ConfigError
from sartor.networks import macs_params
from sartor.spaces import _cells as cells
from sartor.spaces._cells import Edge, Plan, Shape

PLAN = {"nodes": 2, "operations": ("none", "conv1"), "stem": 4, "cells": (1, 2), "widths": (4, 6)}
TWO = Plan(**PLAN, inputs=2, concat=True, separate=True, keep=2, size=9)
ONE = Plan(**PLAN, inputs=1, concat=False, separate=False, keep=0, size=9)


@pytest.mark.parametrize("name", cells.OPERATIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [8, 9])
def test_weights_and_shapes_are_those_of_the_module(name, stride, size):
    edge = Edge(Shape(5, size), stride)
    module = edge.module(name)
    if module is None:
        assert name == "none"
        module = nn.Identity()
    else:
        assert module(torch.randn(2, 5, size, size)).shape == (2, *edge.y[:1], edge.y.size, edge.y.size)
    macs, params = macs_params(module, torch.zeros(1, 5, size, size))
    assert (edge.weights(name)[0] * edge.y.size**2, sum(edge.weights(name))) == (macs, params)
    assert edge.idle(name) == isinstance(module, nn.Identity)
    assert edge.shallow(name) == (name[:3] not in ("sep", "dil"))


def test_separable_and_dilated_convolutions_see_what_they_should():
    """How far a pixel reaches: 3 twice, 5 twice, 3 with holes, 5 with holes."""
    for name, reach in {"sep3": 2, "sep5": 4, "dil3": 2, "dil5": 4, "conv3": 1, "conv1": 0}.items():
        module = Edge(Shape(1, 15), 1).module(name).eval()
        for weight in module.parameters():
            nn.init.ones_(weight)
        x = torch.zeros(1, 1, 15, 15)
        base = module(x)
        x[0, 0, 7, 7] = 1
        touched = (module(x) - base)[0, 0].nonzero()
        assert (touched.min().item(), touched.max().item()) == (7 - reach, 7 + reach), name
        holes = (2 * reach // 2 + 1) ** 2 if name.startswith("dil") else (2 * reach + 1) ** 2
        assert len(touched) == holes


def test_a_factorised_reduction_reads_every_second_pixel_and_the_ones_beside_them():
    module = cells.Factorised(1, 2).eval()
    for weight in (module.conv_1.weight, module.conv_2.weight):
        nn.init.ones_(weight)
    x = torch.arange(25.0).reshape(1, 1, 5, 5)
    first, second = module(x)[0] * (1 + module.bn.eps) ** 0.5
    torch.testing.assert_close(first, x[0, 0, ::2, ::2])
    torch.testing.assert_close(second, torch.tensor([[6.0, 8, 0], [16, 18, 0], [0, 0, 0]]))


def test_where_cells_stand():
    found = list(TWO.places())
    assert [p.kind for p in found] == ["normal", "reduction", "normal", "normal"]
    assert [p.inputs for p in found] == [
        (Shape(4, 9), Shape(4, 9)),
        (Shape(4, 9), Shape(8, 9)),
        (Shape(8, 9), Shape(12, 5)),
        (Shape(12, 5), Shape(12, 5)),
    ]
    assert [(p.x, p.y) for p in found][1] == (Shape(6, 9), Shape(6, 5))
    assert [b.kind for b in found[2].before] == ["factorised", "adapt"]
    assert TWO.features == Shape(12, 5)
    assert [p.kept for p in found] == [4 * 81, 8 * 81, 12 * 25, 0]


def test_cells_of_one_input_take_it_as_it_is():
    found = list(ONE.places())
    assert [p.kind for p in found] == ["normal", "residual", "normal", "normal"]
    assert not any(p.before or p.kept for p in found)
    assert found[1].edge(0).stride == 2
    first, *_ = Plan(**PLAN | {"stem": 3}, inputs=1, concat=False, separate=False, keep=0, size=9).places()
    assert first.before == (cells.Before(Shape(3, 9), Shape(4, 9)),)


@pytest.mark.parametrize("plan", [ONE, TWO])
def test_costs_of_what_no_choice_changes(plan):
    network = cells.Network(plan, lambda place: [None] * len(plan.edges))
    assert cells.constants(plan) == macs_params(network, torch.zeros(1, 3, 9, 9))


@pytest.mark.parametrize("plan", [ONE, TWO])
def test_operators_run_at_their_shapes(plan):
    found, make = cells.operators(plan)
    assert len(found.options) == len(plan.kinds) * len(plan.edges)
    assert not any(options[0] for options in found.options)
    for operator in found.all():
        y = make[operator.key]()(torch.randn(2, *operator.input_shape))
        *_, out = operator.key.partition("output:")
        size = [int(n) for n in out.partition("-stride")[0].split("x")]
        assert list(y.shape) == ([2, *size] if len(size) == 1 else [2, size[2], *size[:2]])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cells": (1,)}, "one number per stage"),
        ({"nodes": 0}, "nodes, stem, cells and widths must be at least 1"),
        ({"operations": ("none", "skip")}, "not only none and skip"),
        ({"operations": ("conv3", "conv5")}, "operations are different ones of"),
        ({"operations": ("conv3",), "keep": 2}, "operations must name 'none'"),
        ({"inputs": 3}, "1 or 2 inputs; got 3"),
        ({"size": 4, "cells": (1, 1, 1), "widths": (4, 4, 4)}, "it must be at least 8"),
        ({"classes": 0}, "classes and in_channels"),
    ],
)
def test_settings_out_of_range(changed, message):
    with pytest.raises(ConfigError, match=message):
        Plan(**{**vars_of(ONE), **changed})


def vars_of(plan):
    return {k: v for k, v in vars(plan).items() if k != "edges"}

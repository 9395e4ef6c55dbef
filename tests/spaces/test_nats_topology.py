from __future__ import annotations

import math
from collections import Counter
from itertools import product

import pytest
import torch
from torch import nn

from sartor import archs
from sartor.core.abilities import Accounted
from sartor.core.errors import ConfigError
from sartor.core.rng import numpy_rng
from sartor.costs.macs import Macs
from sartor.costs.memory import Memory
from sartor.costs.params import Params
from sartor.networks import macs_params
from sartor.spaces import _nats as nats
from sartor.spaces.nats_topology import NatsTopology

EVERY = list(product(range(5), repeat=6))
OPS = ("none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")
# Parameters and FLOPs in millions on CIFAR-10, as published.
GOLDEN = {
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|": (
        0.129306,
        15.64737,
    ),
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|": (0.802426, 113.95137),
    "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|none~0|nor_conv_1x1~1|none~2|": (0.101306, 11.71521),
}


def arch_of(key):
    return tuple(OPS.index(part.split("~")[0]) for part in key.replace("+", "").split("|") if part)


@pytest.mark.parametrize("key", GOLDEN)
def test_published_costs(key):
    space, arch = NatsTopology(), arch_of(key)
    params, flops = GOLDEN[key]
    assert space.key(arch) == key
    assert len(Macs(space).terms()) == 1
    assert float(Params(space)([arch])[0]) == round(params * 1e6)
    assert float(Macs(space)([arch])[0]) == round(flops * 1e6)
    with torch.device("meta"):
        network = space.build(arch)
        macs, weights = macs_params(network, torch.zeros(1, *space.input_shape))
    assert (weights, macs + 10) == (round(params * 1e6), round(flops * 1e6))


@pytest.mark.parametrize(
    "settings",
    [{"classes": 100, "cells": 2}, {"classes": 120, "size": 16, "cells": 1}, {"size": 9, "in_channels": 1, "cells": 1}],
)
def test_costs_on_other_data(settings):
    space, rng = NatsTopology(**settings, merge="none"), numpy_rng(0)
    for arch in [space.moves.draw(rng) for _ in range(3)]:
        with torch.device("meta"):
            macs, params = macs_params(space.build(arch), torch.zeros(1, *space.input_shape))
        assert float(Macs(space)([arch])[0]) == macs + space.classes
        assert float(Params(space)([arch])[0]) == params


def test_names():
    space = NatsTopology()
    assert isinstance(space, Accounted)
    assert len({space.key(a) for a in EVERY}) == 15625
    assert space.account("latency_ms") is None


@pytest.mark.parametrize(("merge", "distinct"), [("published", 6466), ("all", 4930), ("none", 15625)])
def test_how_many_networks_there_are(merge, distinct):
    space = NatsTopology(merge=merge)
    stand = {a: space.canonical(a) for a in EVERY}
    assert len(set(stand.values())) == distinct
    assert all(space.canonical(a) == a for a in stand.values())
    macs = dict(zip(EVERY, Macs(space)(EVERY).tolist(), strict=True))
    assert all(macs[stand[a]] <= macs[a] for a in EVERY)
    assert space.canonical(space.reference) == space.reference


FACTORS = {2: 1.3, 3: 2.1, 4: 3.7}


def computed(arch, x):
    """What a cell makes of `x` if its operations are fixed functions that do not commute with sums."""
    nodes = [x, 0.0, 0.0, 0.0]
    for a, (source, node) in zip(arch, nats.EDGES, strict=True):
        if a:
            nodes[node] += math.sin(FACTORS[a] * nodes[source]) if a > 1 else nodes[source]
    return nodes[-1]


class Sine(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return (self.factor * x).sin()


def test_cells_compute_what_their_names_say():
    rng, x = numpy_rng(0), torch.tensor([0.3, 1.1], dtype=torch.float64)
    for arch in [EVERY[int(rng.integers(len(EVERY)))] for _ in range(100)]:
        cell = nats.Cell([OPS[a] for a in arch], 1, 1)
        for i, a in enumerate(arch):
            cell.layers[i] = Sine(FACTORS[a]) if a > 1 else cell.layers[i]
        assert cell(x).tolist() == pytest.approx([computed(arch, 0.3), computed(arch, 1.1)], abs=1e-12)


@pytest.fixture(scope="module")
def signatures():
    return {a: (round(computed(a, 0.3), 9), round(computed(a, 1.1), 9)) for a in EVERY}


def test_networks_that_compute_the_same_are_one(signatures):
    """Exactly those under `all`; under `published` none that differ, but not all that are equal."""
    strict, published = NatsTopology(merge="all"), NatsTopology()
    assert len(set(signatures.values())) == 4930
    for arch, signature in signatures.items():
        assert signatures[strict.canonical(arch)] == signature
        assert signatures[published.canonical(arch)] == signature


def test_the_reference_is_the_residual_block(signatures):
    for merge in ("published", "all", "none"):
        cell = signatures[NatsTopology(merge=merge).reference]
        assert (
            cell
            == signatures[arch_of("|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|")]
        )


def test_weights_have_the_names_of_published_networks():
    space = NatsTopology()
    state = space.build(arch_of("|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"))
    shapes = {k: tuple(v.shape) for k, v in state.state_dict().items()}
    assert shapes["cells.0.layers.0.op.1.weight"] == (16, 16, 3, 3)
    assert shapes["cells.16.layers.2.op.1.weight"] == (64, 64, 1, 1)
    assert shapes["cells.11.downsample.1.weight"] == (64, 32, 1, 1)
    assert not [k for k in shapes if k.startswith(("cells.0.layers.1", "cells.0.layers.5"))]


def alive(arch):
    """Most feature maps alive at once while an operation with a result of its own runs, by going through the cell."""
    most, sums = 0, Counter()
    for e, (a, (source, node)) in enumerate(zip(arch, nats.EDGES, strict=True)):
        if a > 1:
            later = {s for b, (s, _) in zip(arch[e + 1 :], nats.EDGES[e + 1 :], strict=True) if b}
            waiting = [n for n in range(node) if n != source and n in later]
            most = max(most, 2 + len(waiting) + bool(sums[node]))
        sums[node] += a > 0
    return most


def test_memory_by_going_through_the_cell():
    space = NatsTopology(merge="none")
    around = Memory(space, bytes_per_value=1)([(0,) * 6]).tolist()[0]
    # In the first residual block: its input, the sum so far and the result of the shortcut, or the pooled input.
    assert around == max(16 * 1024 + 2 * 32 * 256, 16 * 1024 + 16 * 256 + 32 * 256)
    want = [max(alive(a) * 16 * 1024, around) for a in EVERY]
    assert Memory(space, bytes_per_value=1)(EVERY).tolist() == want


def test_cells_of_a_supernet_share_gates_and_not_weights():
    space = NatsTopology(size=8, cells=2, merge="none")
    net, x = space.supernet().eval(), torch.randn(2, 3, 8, 8)
    arch = (4, 1, 0, 3, 2, 4)
    child = net.extract(arch)
    torch.testing.assert_close(child(x), net(x, archs.gates(space, arch)))
    for i in range(6):  # in all stages, one more operation is one more term
        assert not torch.equal(net(x, [g + (j == i) * torch.eye(5)[3] for j, g in enumerate(gates_of(arch))]), child(x))
    assert len([k for k in net.state_dict() if k.endswith("options.4.op.1.weight")]) == 6 * 6
    assert set(child.state_dict()) == set(space.build(arch).state_dict())


def gates_of(arch):
    return [torch.eye(5)[a] for a in arch]


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match="merge must be published, all or none; got 'some'"):
        NatsTopology(merge="some")
    with pytest.raises(ConfigError, match="cells must be at least 1; got 0"):
        NatsTopology(cells=0)

from __future__ import annotations

import pytest
import torch

from sartor import archs
from sartor.core.abilities import Accounted, Operated, Shareable
from sartor.core.errors import ConfigError
from sartor.core.rng import numpy_rng
from sartor.costs.macs import Macs
from sartor.costs.memory import Memory
from sartor.costs.params import Params
from sartor.networks import macs_params
from sartor.spaces.cells import Cells
from sartor.spaces.nats_topology import NatsTopology

SLIM = {"preset": "darts", "size": 8, "cells": (2, 1), "widths": (4, 6), "stem": 6, "classes": 4}
ANY = ("none", "skip", "avg3", "max3", "conv1", "conv3", "dil3", "dil5", "sep3", "sep5")
SPACES = {
    "nats": Cells(size=9, cells=(1, 2, 1), classes=7),
    "darts": Cells(**SLIM | {"nodes": 3}),
    "one": Cells(**SLIM | {"size": 9, "inputs": 1, "separate": False, "nodes": 2, "operations": ANY}),
    "odd": Cells(nodes=2, operations=ANY, inputs=2, size=11, cells=(1, 1, 1), widths=(3, 5, 6), separate=True),
}
every = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
# The second-order cells of DARTS: per node, what its two edges run and start at.
PUBLISHED = {
    "normal": (
        {0: "sep3", 1: "sep3"},
        {0: "sep3", 1: "sep3"},
        {1: "sep3", 0: "skip"},
        {0: "skip", 2: "dil3"},
    ),
    "reduction": (
        {0: "max3", 1: "max3"},
        {2: "skip", 1: "max3"},
        {0: "max3", 2: "skip"},
        {2: "skip", 1: "max3"},
    ),
}


def published(space):
    nodes = [(n, source) for kind in PUBLISHED.values() for n, node in enumerate(kind) for source in range(2 + n)]
    cells = [kind for kind in PUBLISHED.values() for n, _ in enumerate(kind) for _ in range(2 + n)]
    words = [cell[n].get(source, "none") for cell, (n, source) in zip(cells, nodes, strict=True)]
    return tuple(space.plan.operations.index(word) for word in words)


def drawn(space, n, seed=0):
    rng = numpy_rng(seed)
    return [tuple(int(rng.integers(len(c.options))) for c in space.choices) for _ in range(n)]


def test_the_published_network_of_darts():
    """20 cells, 36 channels, 3.3 million parameters."""
    space = Cells(preset="darts", stem=108, cells=(6, 6, 6), widths=(36, 72, 144))
    arch = published(space)
    with torch.device("meta"):
        macs, params = macs_params(space.build(arch), torch.zeros(1, 3, 32, 32))
    assert params == float(Params(space)([arch])[0]) == 3_349_342
    assert macs == float(Macs(space)([arch])[0])
    assert space.canonical(arch) == arch


def test_cells_of_nats_are_those_of_the_topology_space():
    nats, cells = NatsTopology(size=8, cells=1, merge="none"), Cells(size=8, cells=(1, 1, 1))
    assert [len(c.options) for c in cells.choices] == [5] * 6
    assert [c.name for c in cells.choices] == [c.name for c in nats.choices]
    few = [(0,) * 6, (1, 3, 4, 2, 1, 4), (4, 0, 3, 3, 2, 0), *drawn(cells, 20)]
    for arch in few[:4]:
        one, two = nats.build(arch).eval(), cells.build(arch).eval()
        two.load_state_dict(one.state_dict(), strict=True)
        x = torch.randn(2, 3, 8, 8)
        torch.testing.assert_close(two(x), one(x))
    assert torch.equal(Macs(cells)(few) + 10, Macs(nats)(few))  # the benchmark counts biases
    assert torch.equal(Params(cells)(few), Params(nats)(few))
    assert torch.equal(Memory(cells)(few), Memory(nats)(few))
    assert cells.operators() == nats.operators()


@every
def test_costs_are_those_of_the_network(space):
    assert isinstance(space, Accounted) and isinstance(space, Shareable)  # noqa: PT018
    assert len(Macs(space).terms()) == 1
    assert len(Memory(space).terms()) > 1
    assert space.account("latency_ms") is None
    for arch in [space.reference, *drawn(space, 2)]:
        with torch.device("meta"):
            macs, params = macs_params(space.build(arch), torch.zeros(1, *space.input_shape))
        assert (float(Macs(space)([arch])[0]), float(Params(space)([arch])[0])) == (macs, params)


def peak(space, arch):
    """The most values alive, by going through every cell."""
    plan, most, count = space.plan, 0, len(space.plan.edges)
    for place in plan.places():
        if place.kind == "residual":
            continue
        start = count * plan.kinds.index(place.kind)
        names = [plan.operations[a] for a in arch[start : start + count]]
        sizes = [place.x.values] * plan.inputs + [place.y.values] * plan.nodes
        for e, (source, node) in enumerate(plan.edges):
            edge, name = place.edge(source), names[e]
            if edge.idle(name):
                continue
            read = {s for b, (s, _) in list(zip(names, plan.edges, strict=True))[e + 1 :] if b != "none"}
            if plan.concat:
                read |= set(range(plan.inputs, node))
            begun = any(b != "none" and n == node for b, (_, n) in list(zip(names, plan.edges, strict=True))[:e])
            others = sum(sizes[n] for n in read - {source} if n < node) + begun * sizes[node] + place.kept
            most = max(most, others + edge.x.values + edge.y.values)
            if name[:3] in ("sep", "dil"):
                most = max(most, others + 2 * edge.y.values + edge.x.values * (source in read))
    return most


@every
def test_memory_by_going_through_the_cells(space):
    found = [*drawn(space, 30), archs.largest(space)]
    around = peak_around(space)
    assert Memory(space, bytes_per_value=1)(found).tolist() == [max(around, peak(space, a)) for a in found]


def peak_around(space):
    none = tuple(space.plan.operations.index("none") for _ in space.choices)
    return float(Memory(space, bytes_per_value=1)([none])[0])


def test_memory_around_the_cells_by_hand():
    """The second cell makes 4 channels of the stem's 30, while the 8 of the first cell wait."""
    space = Cells(**SLIM | {"nodes": 2, "cells": (2, 1), "in_channels": 1, "stem": 30})
    assert peak_around(space) == 64 * (30 + 4 + 8)


@every
def test_operators_cover_all_convolutions(space):
    assert isinstance(space, Operated)
    for arch in drawn(space, 2):
        ran = space.operators()
        used = [*ran.fixed, *(o for i, a in enumerate(arch) for o in ran.options[i][a])]
        counts = [macs_params(space.operator(o), torch.zeros(1, *o.input_shape)) for o in used]
        assert sum(macs for macs, _ in counts) == float(Macs(space)([arch])[0])
        assert sum(params for _, params in counts) == float(Params(space)([arch])[0])
    with pytest.raises(ConfigError, match="no network of this space runs"):
        space.operator(type(used[0])("conv7", (1, 2, 3)))


@every
def test_canonical_networks_compute_the_same(space):
    """Exactly, as fresh norms leave zeros what they are."""
    net = space.supernet().eval()
    for arch in drawn(space, 10, 1):
        cut = space.canonical(arch)
        pairs = zip(space.choices, arch, cut, strict=True)
        assert all(a == b or choice.options[b] == "none" for choice, a, b in pairs)
        x = torch.randn(1, *space.input_shape)
        torch.testing.assert_close(net(x, archs.gates(space, arch)), net(x, archs.gates(space, cut)))


def test_what_canonical_takes_away():
    space = Cells()
    options = space.plan.operations

    def canonical(text):
        return " ".join(options[a] for a in space.canonical(tuple(map(options.index, text.split()))))

    # in the order 1<0, 2<0, 2<1, 3<0, 3<1, 3<2
    assert canonical("none skip conv3 none conv1 avg3") == "none skip none none none avg3"  # node 1 is nothing
    assert canonical("conv3 skip conv3 none conv1 none") == "conv3 none none none conv1 none"  # nobody reads node 2
    assert canonical("conv3 none conv3 skip none none") == "none none none skip none none"  # nor node 1 then
    assert canonical("conv3 none none none none conv1") == "none none none none none none"
    darts = Cells(preset="darts", nodes=1)
    assert all(darts.canonical(a) == a for a in drawn(darts, 20))  # all nodes are read
    without = Cells(operations=("skip", "conv3"))
    assert all(without.canonical(a) == a for a in drawn(without, 20))


def test_the_reference_is_residual():
    words = [Cells().choices[i].options[a] for i, a in enumerate(Cells().reference)]
    assert words == ["conv3", "skip", "conv3", "skip", "none", "conv3"]


def test_derivation_keeps_the_strongest_edges():
    space = Cells(preset="darts", nodes=2, operations=("none", "skip", "sep3"), separate=False)
    probs = [
        torch.tensor(p) for p in ([0.9, 0.06, 0.04], [0.0, 0.5, 0.5], [0.7, 0.1, 0.2], [0.3, 0.5, 0.2], [0.5, 0.1, 0.4])
    ]
    # Node 2 has two edges, whatever `none` says; of node 3 the weakest, 0.2, goes. Of equals the first.
    assert space.moves.derive(probs) == (1, 1, 0, 1, 2)
    plain = Cells(nodes=2)
    likeliest = [torch.tensor([0.2, 0.1, 0.3, 0.35, 0.05])] * 3
    assert plain.moves.derive(likeliest) == (3, 3, 3)
    assert plain.moves.derive([torch.tensor([0.9, 0.1, 0, 0, 0])] * 3) == (0, 0, 0)


def test_derivation_finds_the_published_cells():
    space = Cells(preset="darts")
    probs = [torch.full((8,), 0.1) for _ in space.choices]
    for p, a in zip(probs, published(space), strict=True):
        p[0] = 0.5  # never counts
        p[a] += 0.2 * (a > 0)
    assert space.moves.derive(probs) == published(space)


def test_unknown_preset():
    with pytest.raises(ConfigError, match="preset is one of nats, darts; got 'enas'"):
        Cells(preset="enas")

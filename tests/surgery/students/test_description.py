from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nets import Residual, Stages, random_
from sartor.core.errors import CapabilityError
from sartor.spaces.compression import Compression
from sartor.surgery.students.description import PAPER_TYPES, TYPES


def small(**settings):
    """Two convolutions with a norm and a ReLU between."""
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.MaxPool2d(2))
    return Compression(network=layers.eval(), size=8, steps=4, **settings)


def test_the_encoding_of_the_paper():
    space = small(encoding="paper")
    names = [c.name for c in space.choices]
    arch = list(space.reference)
    arch[names.index("keep:2")] = 0
    arch[names.index("width:0")] = 1
    arch[names.index("skip:3")] = space.choices[names.index("skip:3")].options.index("0")
    rows = space.description(tuple(arch))
    assert rows.shape == (5, 272)
    assert rows.dtype == np.float32
    assert [PAPER_TYPES[i] for i in rows[:, :10].argmax(1)] == ["conv", "batch_norm", "identity", "conv", "max_pool"]
    assert rows[:, 10:16].tolist() == [
        [3, 2, 1, 1, 3, 4],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [1, 1, 0, 1, 4, 8],
        [2, 2, 0, 0, 0, 0],
    ]
    into, out = rows[:, 16:144], rows[:, 144:]
    assert [np.flatnonzero(r).tolist() for r in into] == [[], [1], [1], [1, 3], [1]]
    assert [np.flatnonzero(r).tolist() for r in out] == [[1, 3], [1], [1], [1], []]


@pytest.mark.parametrize("encoding", ["paper", "log"])
def test_edges_are_those_described(encoding):
    space = Compression(network=random_(Stages()).eval(), size=8, steps=8, encoding=encoding)
    rng = np.random.default_rng(0)
    for arch in (space.reference, *(space.moves.draw(rng) for _ in range(10))):
        rows, (a, b) = space.description(arch), space.edges(arch)
        assert (a < b).all()
        assert len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(a)
        if encoding == "paper":
            into, out = rows[:, 16:144], rows[:, 144:]
            assert sorted(zip(a.tolist(), b.tolist(), strict=True)) == sorted(
                (int(i - d), int(i)) for i, d in np.argwhere(into)
            )
            assert len(a) == out.sum()
        else:
            assert rows[:, -1].tolist() == [(b == i).sum() / 4 for i in range(len(rows))]


def test_sums_are_no_layers_of_the_paper():
    """All terms of a sum lead into what reads it."""
    rows = Compression(network=random_(Residual()).eval(), size=8, encoding="paper")
    found = rows.description(rows.reference)
    depthwise = next(i for i, r in enumerate(found) if r[13] == 8)
    assert np.flatnonzero(found[depthwise, 16:144]).size == 2


def test_networks_that_differ_are_described_differently():
    for encoding in ("log", "paper"):
        space = Compression(network=random_(Stages()).eval(), size=8, steps=8, encoding=encoding)
        rng = np.random.default_rng(0)
        one_off = [
            (*space.reference[:i], k, *space.reference[i + 1 :])
            for i, c in enumerate(space.choices)
            for k in range(len(c.options))
        ]
        drawn = {space.canonical(a) for a in (*one_off, *(space.moves.draw(rng) for _ in range(200)))}
        seen = {}
        for arch in drawn:
            other = seen.setdefault(space.description(arch).tobytes(), arch)
            assert other == arch, (space.choices, arch, other)
        assert len({space.description(a).shape for a in list(drawn)[:20]}) == 1


def test_what_has_no_effect_is_not_described():
    space = Compression(network=random_(Stages()).eval(), size=8, steps=8)
    rng = np.random.default_rng(1)
    for _ in range(20):
        arch = tuple(int(rng.integers(len(c.options))) for c in space.choices)
        assert np.array_equal(space.description(arch), space.description(space.canonical(arch)))


def test_numbers_are_of_the_size_of_one():
    space = Compression(network="torchvision:resnet18", size=32)
    rows = space.description(space.reference)
    assert np.abs(rows).max() < 4
    assert rows[:, : len(TYPES)].sum(1).tolist() == [1] * len(rows)
    assert np.isfinite(rows).all()


def test_the_paper_describes_up_to_128_layers():
    deep = nn.Sequential(nn.Conv2d(3, 4, 1), *(nn.ReLU() for _ in range(128))).eval()
    with pytest.raises(CapabilityError, match=r"up to 128 layers, this network has 129.*'log'"):
        Compression(network=deep, size=2, encoding="paper", changes=("layers", "blocks"))
    space = Compression(network=deep, size=2, changes=("layers", "blocks"))
    rows = space.description(space.reference)
    assert len(rows) == 129
    assert torch.from_numpy(rows).isfinite().all()

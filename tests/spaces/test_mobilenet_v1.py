from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sartor.core.errors import ConfigError
from sartor.costs.macs import Macs
from sartor.costs.params import Params
from sartor.spaces.mobilenet_v1 import MobilenetV1

README = (16, 32, 64, 112, 360, 48, 464, 664, 152, 664, 256, 208, 816, 304)
AUTOSLIM = {
    149.83: (16, 32, 48, 48, 88, 88, 224, 176, 224, 368, 320, 224, 744, 744),
    324.76: (16, 32, 48, 64, 112, 184, 320, 368, 320, 416, 464, 560, 1128, 1128),
}


@pytest.fixture(scope="module")
def space():
    return MobilenetV1()


def find(space, widths):
    return tuple(c.options.index(w) for c, w in zip(space.choices, widths, strict=True))


def million_macs(space, arch):
    return float(Macs(space)([arch])[0]) / 1e6


def test_the_widths_on_offer(space):
    assert [len(c.options) for c in space.choices] == [6, 11, *[14] * 12]
    assert math.prod(len(c.options) for c in space.choices) == 6 * 11 * 14**12
    assert space.choices[0].options == (8, 16, 24, 32, 40, 48)
    assert space.choices[4].options == (48, 80, 104, 128, 152, 176, 208, 232, 256, 280, 304, 336, 360, 384)
    assert space.choices[6].options == (104, 152, 208, 256, 304, 360, 408, 464, 512, 560, 616, 664, 720, 768)
    top = (208, 304, 408, 512, 616, 720, 816, 920, 1024, 1128, 1232, 1328, 1432, 1536)
    assert space.choices[13].options == top


def test_the_reference_is_the_published_network(space):
    widths = [c.options[a] for c, a in zip(space.choices, space.reference, strict=True)]
    assert widths == [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    assert million_macs(space, space.reference) == pytest.approx(568.74, abs=0.005)
    assert int(Params(space)([space.reference])[0]) == 4_231_976
    assert million_macs(space, find(space, README)) == pytest.approx(267.0098, abs=1e-4)


@pytest.mark.parametrize("macs", AUTOSLIM)
def test_published_slim_networks(macs):
    base = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    fractions = sorted({w / b for w, b in zip(AUTOSLIM[macs], base, strict=True)})
    space = MobilenetV1(multipliers=fractions)
    assert million_macs(space, find(space, AUTOSLIM[macs])) == pytest.approx(macs, abs=0.005)


def keys(space):
    grid = [(layer, a, b) for layer in space.layers() for a in layer.c_in.sizes for b in layer.c_out.sizes]
    return {layer.sized(a, b) for layer, a, b in grid}


def test_distinct_layers_of_the_whole_space(space):
    assert len(keys(space)) == 1612
    assert [layer.in_size[0] for layer in space.layers()] == [224, 112, 112, 56, 56, 28, 28, *[14] * 6, 7, 1]


@pytest.mark.slow
def test_the_additive_model_cannot_identify_every_layer(space):
    """The rank of the design matrix of random archs is 1496: 116 directions of the 1612 change no total."""
    index = {key: i for i, key in enumerate(sorted(keys(space)))}
    generator = np.random.default_rng(0)
    # Differences of one layer's rows span the same space as random archs and keep the matrix small: all archs within
    # two adjacent choices of a base point.
    base = tuple(int(generator.integers(len(c.options))) for c in space.choices)
    rows = {base}
    for i, choice in enumerate(space.choices):
        after = space.choices[i + 1].options if i + 1 < len(space.choices) else (None,)
        for a in range(len(choice.options)):
            for b in range(len(after)):
                arch = (*base[:i], a, *((b, *base[i + 2 :]) if after[0] is not None else ()))
                rows.add(arch)
    matrix = np.zeros((len(rows), len(index)))
    for row, arch in zip(matrix, sorted(rows), strict=True):
        for layer in space.layers():
            row[index[layer.key(arch)]] += 1
    assert np.linalg.matrix_rank(matrix) == 1496


@pytest.mark.parametrize(
    ("settings", "last"),
    [({}, 7), ({"stem": "small", "size": 32}, 4), ({"stem": "small", "size": 64}, 8), ({"size": 100}, 4)],
)
def test_the_final_map(settings, last):
    space = MobilenetV1(width=0.25, classes=3, **settings)
    network = space.build(space.scaled(0.0)).eval()
    seen = []
    network.pool.register_forward_hook(lambda _m, x, _y: seen.append(x[0].shape[-2:]))
    network(torch.randn(1, *space.input_shape))
    assert tuple(seen[0]) == (last, last)


def test_own_strides_width_and_divisor():
    space = MobilenetV1(strides=[1] * 14, size=4, width=0.5, divisor=1, multipliers=(0.5, 1.0), in_channels=1)
    assert space.choices[0].options == (8, 16)
    assert space.input_shape == (1, 4, 4)
    assert {layer.in_size for layer in space.layers()[:-1]} == {(4, 4)}


@pytest.mark.parametrize(
    "settings",
    [{"stem": "large"}, {"strides": (1, 2)}, {"multipliers": ()}, {"multipliers": (0.0, 1.0)}, {"divisor": 0}],
)
def test_wrong_settings_are_explained(settings):
    with pytest.raises(ConfigError, match="must"):
        MobilenetV1(**settings)

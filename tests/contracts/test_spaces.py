from __future__ import annotations

import copy
import io
from itertools import pairwise

import pytest
import torch

from samples import SPACES, shaped, spaces_with
from sartor import archs
from sartor.core.abilities import Layered, Scalable, Shareable
from sartor.core.contracts import Space
from sartor.core.records import LayerKey
from sartor.core.rng import global_seed, numpy_rng
from sartor.costs.macs import Macs

every = pytest.mark.parametrize("space", SPACES)
runnable = pytest.mark.parametrize("space", shaped(SPACES))
layered = pytest.mark.parametrize("space", spaces_with(Layered))


def some(space, n=3, seed=0):
    rng = numpy_rng(seed)
    return [archs.smallest(space), archs.largest(space), *(space.moves.draw(rng) for _ in range(n))]


def test_the_lists_are_not_silently_short():
    assert len([p for p in SPACES if isinstance(p.values[0], Space)]) >= 6
    assert min(len(shaped(spaces_with(a))) for a in (Layered, Scalable, Shareable)) >= 6


@every
def test_choices_have_distinct_names_and_the_reference_is_an_arch(space):
    assert space.choices
    assert len({c.name for c in space.choices}) == len(space.choices)
    assert len(space.reference) == len(space.choices)
    assert all(0 <= a < len(c.options) for a, c in zip(space.reference, space.choices, strict=True))


@every
def test_canonical_is_idempotent(space):
    for arch in some(space, 20):
        assert space.canonical(space.canonical(arch)) == space.canonical(arch)


@every
def test_weights_come_from_the_global_generator_only(space):
    def drawn(seed):
        with global_seed(seed):
            return [p.detach().clone() for p in space.build(space.reference).parameters()]

    assert all(torch.equal(a, b) for a, b in zip(drawn(1), drawn(1), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(drawn(1), drawn(2), strict=True))


@every
def test_networks_are_built_without_memory_under_the_meta_device(space):
    for arch in (space.reference, archs.smallest(space)):
        with torch.device("meta"):
            outline = space.build(arch)
        with global_seed(0):
            real = space.build(arch)
        assert all(p.is_meta for p in outline.parameters())
        assert [p.shape for p in outline.parameters()] == [p.shape for p in real.parameters()]


@every
def test_every_build_is_independent(space):
    one, two = space.build(space.reference), space.build(space.reference)
    assert not {p.data_ptr() for p in one.parameters()} & {p.data_ptr() for p in two.parameters()}


@every
def test_networks_are_plain_pytorch(space):
    network = space.build(space.reference)
    assert all(type(m).__module__.split(".")[0] != "sartor" for m in network.modules())
    file = io.BytesIO()
    torch.save(network, file)
    assert b"sartor" not in file.getvalue()


@runnable
def test_networks_run_copy_and_load(space):
    for arch in some(space, 1):
        network, x = space.build(arch).eval(), torch.randn(2, *space.input_shape)
        y = network(x)
        assert len(y) == 2
        assert y.isfinite().all()
        assert torch.equal(copy.deepcopy(network)(x), y)
        again = space.build(arch).eval()
        again.load_state_dict(network.state_dict(), strict=True)
        assert torch.equal(again(x), y)


@pytest.mark.parametrize("space", [p for p in shaped(SPACES) if len(p.values[0].choices) < 8])
def test_networks_export(space):
    network, x = space.build(space.reference).eval(), torch.randn(2, *space.input_shape)
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), network(x))


@pytest.mark.parametrize("space", spaces_with(Scalable))
def test_scaling_starts_at_the_reference_and_is_monotone(space):
    assert space.scaled(1.0) == space.reference
    scaled = [i for i, c in enumerate(space.choices) if c.ordered]  # the others are as they were
    ends = {f: tuple(len(c.options) - 1 if f else 0 for c in space.choices) for f in (0.0, 100.0)}
    for factor, end in ends.items() if scaled else ():  # of operations, not all are the same one scaled
        assert space.scaled(factor) == tuple(end[i] if i in scaled else a for i, a in enumerate(space.reference))
    macs = Macs(space)([space.scaled(0.0), space.reference, space.scaled(100.0)])
    assert macs[0] < macs[1] <= macs[2]
    grown = [space.scaled(f / 10) for f in range(0, 20)]
    assert all(a <= b for one, two in pairwise(grown) for a, b in zip(one, two, strict=True))


@layered
def test_layer_channels_are_the_options_of_their_choice(space):
    layers = space.layers()
    assert len({layer.name for layer in layers}) == len(layers)
    for axis in [a for layer in layers for a in (layer.c_in, layer.c_out, *(held for held, _ in layer.held))]:
        assert len(axis.sizes) == (1 if axis.choice is None else len(space.choices[axis.choice].options))
    used = {a.choice for layer in layers for a in (layer.c_in, layer.c_out)} - {None}
    assert used == set(range(len(space.choices)))


@layered
def test_equal_layers_share_their_key(space):
    for arch in some(space):
        keys = [layer.key(arch) for layer in space.layers()]
        assert keys == [layer.key(arch) for layer in space.layers()]
        assert all(isinstance(key, LayerKey) and hash(key) == hash(LayerKey(*key)) for key in keys)
        assert all(key.c_in == layer.c_in.at(arch) for key, layer in zip(keys, space.layers(), strict=True))

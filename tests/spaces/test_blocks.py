from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from sartor.core.errors import ConfigError
from sartor.core.rng import global_seed
from sartor.costs.macs import Macs
from sartor.costs.params import Params
from sartor.spaces.blocks import TYPES, Blocks, _edges, _published
from sartor.spaces.nats_topology import NatsTopology

SMALL = {"size": 8, "repeats": 1, "widths": (4, 6), "classes": 3}


def nats_like(**settings):
    return Blocks(**{"widths": (16, 32, 64), "repeats": 5, "stages": "nats", **settings})


def residual(space):
    return space.arch([("conv3", 0, 0), ("conv3", 1, 0), ("add", 0, 2)])


def test_a_residual_block_computes_what_it_should():
    space = Blocks(**SMALL, layers=5)
    network = space.build(residual(space)).eval()

    def run(name, x):
        """ReLU, convolution, norm."""
        return network.get_submodule(f"{name}.op.2")(network.get_submodule(f"{name}.op.1")(x.relu()))

    def block(i, x):
        return x + run(f"blocks.{i}.layers.1", run(f"blocks.{i}.layers.0", x))

    with torch.no_grad():
        x = torch.randn(2, 3, 8, 8)
        y = block(0, network.get_submodule("stem.1")(network.get_submodule("stem.0")(x)))
        y = block(2, run("blocks.2.start", torch.nn.functional.max_pool2d(y, 2)))
        torch.testing.assert_close(network.classifier(y.relu().mean((2, 3))), network(x))


def test_macs_and_parameters_by_hand():
    """Stem 3x3, two blocks of a 3x3 and a 5x5 convolution side by side, joined by a 1x1 one; 4 channels, then 6."""
    space = Blocks(**SMALL, layers=3)
    arch = space.arch([("conv3", 0, 0), ("conv5", 0, 0)])
    one = 64 * (9 + 25 + 2) * 16
    two = 16 * (4 * 6 + (9 + 25 + 2) * 36)
    assert Macs(space)([arch]).item() == 64 * 9 * 3 * 4 + one + two + 6 * 3
    weights = 9 * 3 * 4 + 36 * 16 + 4 * 6 + 36 * 36 + 6 * 3
    assert Params(space)([arch]).item() == weights + 2 * (4 + 3 * 4 + 6 + 3 * 6) + 3


def test_loose_ends_are_the_output():
    assert _edges([("conv3", 0, 0), ("conv5", 0, 0)]) == [(0, 1), (0, 2), (1, 3), (2, 3)]
    assert _edges([("conv3", 0, 0), ("add", 0, 1)]) == [(0, 1), (0, 2), (1, 2), (2, 3)]
    assert _edges([]) == [(0, 1)]


def test_inception_like_code():
    space = Blocks(layers=6)
    code = [("conv1", 0, 0), ("conv3", 1, 0), ("conv5", 1, 0), ("max3", 0, 0), ("concat", 2, 3), ("concat", 4, 5)]
    arch = space.arch(code)
    assert list(space.code(arch)) == code
    assert space.tally("edges", [arch]).item() == 9
    assert space.tally("density", [arch]).item() == 9 / 8


def test_absent_layers_and_what_is_not_taken_do_not_count():
    space = Blocks(layers=3)
    none, conv, add = (TYPES.index(t) for t in ("none", "conv3", "add"))
    assert space.canonical((conv, 0, 0, none, 0, 1, conv, 2, 1)) == (conv, 0, 0, 0, 0, 0, 0, 0, 0)
    assert space.canonical((conv, 0, 0, conv, 1, 1, add, 2, 0)) == (conv, 0, 0, conv, 1, 0, add, 0, 2)


def test_equal_archs_build_equal_networks():
    space, rng = Blocks(**SMALL, layers=4), np.random.default_rng(0)
    for _ in range(20):
        arch = tuple(int(rng.integers(len(c.options))) for c in space.choices)
        with torch.device("meta"):
            one, other = space.build(arch), space.build(space.canonical(arch))
        assert {k: v.shape for k, v in one.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}


def test_the_names_of_all_cells_that_compute_something():
    published = _published()
    space = NatsTopology(merge="all")
    keys = {space.key(space.canonical(a)) for a in product(range(5), repeat=6)}
    assert set(published.values()) <= {NatsTopology(merge="none").key(a) for a in product(range(5), repeat=6)}
    assert len(published) == len(keys) - 1  # 4,930 different ones, of which one computes nothing


def test_a_cell_of_the_table_has_the_name_of_one_that_computes_the_same():
    space, table = nats_like(layers=4), NatsTopology(merge="all")
    cells = {table.key(a): a for a in product(range(5), repeat=6)}
    assert table.canonical(cells[space.key(residual(space))]) == table.reference
    detour = space.arch([("skip", 0, 0), ("conv3", 1, 0), ("conv3", 2, 0), ("add", 3, 1)])
    assert space.key(detour) == space.key(residual(space))
    assert "avg_pool_3x3" in space.key(space.arch([("avg3", 0, 0)]))


def test_a_network_with_a_name_is_that_of_the_table():
    space, table = nats_like(layers=3), NatsTopology()
    arch = residual(space)
    same = {table.key(a): a for a in product(range(5), repeat=6)}[space.key(arch)]
    with global_seed(0):
        one = space.build(arch).eval()
    with global_seed(0):
        other = table.build(same).eval()
    shapes = [sorted(p.shape for p in m.parameters()) for m in (one, other)]
    assert shapes[0] == shapes[1]
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():  # the layers are made in the same order
        torch.testing.assert_close(one(x), other(x))


def test_other_networks_have_their_code_for_a_name():
    space = nats_like(layers=3)
    for code in ([("conv5", 0, 0)], [("conv3", 0, 0), ("conv1", 0, 0)], [("max3", 0, 0), ("add", 0, 1)]):
        assert "|" not in space.key(space.arch(code))
    assert "|" not in Blocks(layers=3).key(residual(Blocks(layers=3)))


def test_a_code_must_fit():
    space = Blocks(layers=2)
    with pytest.raises(ConfigError, match="the code has 3 layers, the space 2; set layers = 3"):
        space.arch([("conv3", 0, 0)] * 3)
    with pytest.raises(ConfigError, match="layer 1 is .* takes layers 0 to 0"):  # noqa: RUF043
        space.arch([("conv3", 1, 0)])


@pytest.mark.parametrize(
    "settings", [{"layers": 0}, {"widths": ()}, {"stages": "none"}, {"stages": "nats", "stem": 7}, {"size": 4}]
)
def test_settings_are_checked(settings):
    with pytest.raises(ConfigError):
        Blocks(**settings)

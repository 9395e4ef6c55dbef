from __future__ import annotations

import pytest
import torch

from sartor import archs
from sartor.core.abilities import Accounted, Layered, Scalable
from sartor.costs.macs import Macs
from sartor.costs.memory import Memory
from sartor.costs.params import Params
from sartor.networks import macs_params
from sartor.spaces.nats_size import NatsSize

# Parameters and FLOPs in millions, as published, by the settings of the data set.
DATA_SETS = [{}, {"classes": 100}, {"classes": 120, "size": 16}]
GOLDEN = {
    (8, 8, 8, 8, 8): [(0.011714, 4.481114), (0.012524, 4.481924), (0.012704, 1.121336)],
    (8, 8, 8, 16, 32): [(0.049202, 6.84065), (0.052172, 6.84362), (0.052832, 1.71404)],
    (8, 8, 40, 32, 40): [(0.144834, 21.827994), (0.148524, 21.831684), (0.149344, 5.461816)],
    (64, 64, 64, 64, 64): [(0.713674, 274.399882), (0.719524, 274.405732), (0.720824, 68.607608)],
}


def arch_of(widths):
    return tuple(w // 8 - 1 for w in widths)


@pytest.mark.parametrize("widths", GOLDEN, ids=str)
@pytest.mark.parametrize("which", range(3), ids=["cifar10", "cifar100", "ImageNet16-120"])
def test_published_costs(widths, which):
    space, arch = NatsSize(**DATA_SETS[which]), arch_of(widths)
    params, flops = GOLDEN[widths][which]
    assert len(Macs(space).terms()) == 1
    assert float(Params(space)([arch])[0]) == round(params * 1e6)
    assert float(Macs(space)([arch])[0]) == round(flops * 1e6)
    with torch.device("meta"):
        network = space.build(arch)
        macs, weights = macs_params(network, torch.zeros(1, *space.input_shape))
    assert (weights, macs + space.classes) == (round(params * 1e6), round(flops * 1e6))


def test_the_names_of_the_table():
    space = NatsSize()
    assert space.key(arch_of((8, 8, 40, 32, 64))) == "8:8:40:32:64"
    assert [c.name for c in space.choices] == ["c1", "c2", "c3", "c4", "c5"]
    assert len({space.key(a) for a in archs.enumerate_all(space)}) == 32768
    assert space.key(space.reference) == "64:64:64:64:64"


def test_what_it_offers():
    space = NatsSize()
    assert all(isinstance(space, ability) for ability in (Accounted, Layered, Scalable))
    assert space.account("latency_ms") is None
    assert space.key(space.scaled(0.5)) == "32:32:32:32:32"


def test_weights_have_the_names_of_published_networks():
    shapes = {k: tuple(v.shape) for k, v in NatsSize().build(arch_of((8, 16, 24, 32, 40))).state_dict().items()}
    assert shapes["stem.0.weight"] == (8, 3, 3, 3)
    assert shapes["cells.0.layers.0.op.1.weight"] == (8, 8, 3, 3)
    assert "cells.0.layers.3.conv.weight" not in shapes
    assert shapes["cells.1.conv_a.op.1.weight"] == (16, 8, 3, 3)
    assert shapes["cells.1.downsample.1.weight"] == (16, 8, 1, 1)
    assert shapes["cells.2.layers.3.conv.weight"] == (24, 16, 1, 1)
    assert shapes["cells.4.layers.5.op.2.weight"] == (40,)
    assert shapes["lastact.0.bias"] == (40,)
    assert shapes["classifier.weight"] == (10, 40)


def test_memory_by_hand():
    """In a cell four feature maps are alive while the sums of the last two nodes grow."""
    memory = Memory(NatsSize(), bytes_per_value=1)
    assert memory([(7, 0, 0, 0, 0)]).tolist() == [4 * 64 * 1024]
    assert memory([(0, 0, 7, 0, 0)]).tolist() == [4 * 64 * 256]  # of the second cell, which widens

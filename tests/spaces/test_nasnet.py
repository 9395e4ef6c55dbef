from __future__ import annotations

import pytest
import torch

from sartor.core.errors import ConfigError
from sartor.costs.macs import Macs
from sartor.costs.params import Params
from sartor.spaces.nasnet import OPERATIONS, Nasnet

SMALL = {"size": 16, "cells": 1, "width": 4, "classes": 3}


def test_nasnet_a_mobile():
    """564 M multiply-adds and 5.3 M parameters at 224 (paper, table 2); other definitions have 5,289,978 exactly."""
    space = Nasnet(preset="mobile")
    assert Params(space)([space.reference]).item() == 5_289_978
    assert round(Macs(space)([space.reference]).item() / 1e6) == 564
    with torch.device("meta"):
        network = space.build(space.reference)
    assert network.classifier.in_features == 1056


def test_nasnet_a_for_cifar():
    """6@768: 3.3 M parameters (paper, table 1)."""
    space = Nasnet(cells=6, width=32, outputs="nasnet_a")
    assert round(Params(space)([space.reference]).item() / 1e6, 1) == 3.3
    with torch.device("meta"):
        assert space.build(space.reference).classifier.in_features == 768


def test_the_cells_of_nasnet_a():
    space = Nasnet()
    words = [c.options[a] for c, a in zip(space.choices, space.reference, strict=True)]
    assert len(words) == 40
    assert words[:8] == [0, "sep5", 1, "sep3", 1, "sep3", 1, "sep5"]
    assert words[-4:] == [0, "max3", 2, "sep3"]


def test_what_no_block_takes_is_the_output():
    space = Nasnet(blocks=3, **SMALL)
    # blocks 2, 3, 4: 0 + 1, 2 + 0, 0 + 0: block 2 is taken, 3 and 4 are not, nor is anything of the reduction's 1
    skip = space.operations.index("skip")
    cell = [0, skip, 1, skip, 2, skip, 0, skip, 0, skip, 0, skip]
    assert space._code(tuple(cell * 2), 0).outputs == (3, 4)
    other = [0, skip, 0, skip] * 3
    assert space._code(tuple(other * 2), 1).outputs == (1, 2, 3, 4)


def test_sums_have_no_order():
    space = Nasnet(blocks=1, **SMALL)
    assert space.canonical((1, 0, 0, 3, 0, 2, 0, 1)) == (0, 3, 1, 0, 0, 1, 0, 2)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("size", [33, 64])
def test_every_operation_fits_everywhere(operation, stem, size):
    space = Nasnet(blocks=2, operations=(operation,), cells=1, width=8, stem=stem, size=size, classes=3, stages=2)
    network = space.build((0, 0, 1, 0, 2, 0, 0, 0) * 2).eval()
    assert network(torch.randn(2, 3, size, size)).shape == (2, 3)


def test_operations_are_what_they_are_called():
    def weights(operation):
        space = Nasnet(blocks=1, operations=("skip", operation), cells=1, width=4, stages=1, classes=2, size=16)
        skip, one = (Params(space)([(*a, 0, 0, 0, 0)]).item() for a in ((0, 0, 0, 0), (0, 0, 0, 1)))
        return one - skip

    c = 4
    assert weights("sep5") == 2 * (25 * c + c * c + 2 * c)
    assert weights("dil3") == 9 * c + c * c + 2 * c
    assert weights("conv3") == 9 * c * c + 2 * c
    assert weights("1x7-7x1") == 2 * (7 * c * c + 2 * c)
    assert weights("max5") == weights("avg3") == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "large"}, "preset is 'large'"),
        ({"operations": ("sep3", "conv9")}, "operations are different ones of"),
        ({"outputs": "nasnet_a", "blocks": 4}, "those of cells of 5 blocks; blocks is 4"),
        ({"stem": "imagenet", "size": 32}, "size 32 is too small for 3 stages; it must be at least 64"),
        ({"width": 0}, "width must be at least 1; got 0"),
        ({"stem": "other"}, "stem is 'other'"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        Nasnet(**settings)

from __future__ import annotations

import pytest
import torch

from sartor.costs.macs import Macs
from sartor.spaces._mobilenet_v3 import MobilenetV3
from sartor.spaces._staged import Bottleneck


class Two(MobilenetV3):
    stages = (Bottleneck(16, 3, (16,), 2, "relu"), Bottleneck(24, 5, (48, 72), 2, "hardswish", True))
    head = 32


@pytest.fixture
def space():
    return Two(classes=4, size=32)


def test_stages_are_those_of_the_class(space):
    assert [c.name for c in space.choices] == ["stage1", "stage2"]
    assert [c.options[i] for c, i in zip(space.choices, space.reference, strict=True)] == [
        "k3 e1 c16 n1",
        "k5 e1 c24 n2",
    ]
    network = space.build(space.reference).eval()
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    assert [m.out_features for m in network.modules() if isinstance(m, torch.nn.Linear)] == [32, 4]


def test_every_setting_changes_what_is_on_offer(space):
    fewer = Two(classes=4, size=32, kernels=(3,), expansions=(1.0,), filters=(1.0,), repeats=(0,))
    assert len(fewer.choices[0].options) == 1 < len(space.choices[0].options)
    slim, grey = Two(classes=4, size=32, width=0.5), Two(classes=4, size=32, in_channels=1)
    (whole,), (half,), (less,) = (Macs(s)([s.reference]) for s in (space, slim, grey))
    assert half < less < whole
    assert grey.input_shape == (1, 32, 32)

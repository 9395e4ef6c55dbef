from __future__ import annotations

import pytest
from torchvision.models import mobilenet_v3_small

from sartor.spaces.mobilenet_v3_small import MobilenetV3Small
from spaces.peers import SETTINGS, computes_the_same, is_reference


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_reference_is_torchvision_s(settings):
    is_reference(MobilenetV3Small, mobilenet_v3_small, settings, 2542856)


def test_its_weights_give_the_same_outputs():
    computes_the_same(MobilenetV3Small, mobilenet_v3_small)


def test_one_choice_per_stage():
    space = MobilenetV3Small()
    assert [c.name for c in space.choices] == [f"stage{i}" for i in range(1, 5 + 1)]
    assert space.choices[1].options[space.reference[1]] == "k3 e1 c24 n2"

from __future__ import annotations

import pytest
from torchvision.models import mobilenet_v3_large

from sartor.spaces.mobilenet_v3_large import MobilenetV3Large
from spaces.peers import SETTINGS, computes_the_same, is_reference


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_reference_is_torchvision_s(settings):
    is_reference(MobilenetV3Large, mobilenet_v3_large, settings, 5483032)


def test_its_weights_give_the_same_outputs():
    computes_the_same(MobilenetV3Large, mobilenet_v3_large)


def test_one_choice_per_stage():
    space = MobilenetV3Large()
    assert [c.name for c in space.choices] == [f"stage{i}" for i in range(1, 6 + 1)]
    assert space.choices[1].options[space.reference[1]] == "k3 e1 c24 n2"

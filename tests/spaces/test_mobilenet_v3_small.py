from __future__ import annotations

import pytest
import torch
from torchvision.models import mobilenet_v3_small

from sartor.costs.macs import Macs
from sartor.costs.params import Params
from sartor.networks import macs_params
from sartor.spaces.mobilenet_v3_small import MobilenetV3Small


@pytest.mark.parametrize("settings", [{}, {"width": 0.35, "size": 96, "classes": 10}])
def test_the_reference_is_torchvision_s(settings):
    space = MobilenetV3Small(**settings)
    with torch.device("meta"):
        peer = mobilenet_v3_small(width_mult=settings.get("width", 1.0), num_classes=settings.get("classes", 1000))
        ours = space.build(space.reference)
        macs, params = macs_params(peer, torch.zeros(1, *space.input_shape))
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in peer.state_dict().items()}
    assert list(ours.state_dict()) == list(peer.state_dict())
    assert Macs(space)([space.reference]).item() == macs
    assert Params(space)([space.reference]).item() == params
    assert settings or params == 2542856


def test_its_weights_give_the_same_outputs():
    space = MobilenetV3Small(width=0.25, size=32, classes=4)
    peer = mobilenet_v3_small(width_mult=0.25, num_classes=4).eval()
    ours = space.build(space.reference).eval()
    ours.load_state_dict(peer.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(x), peer(x))


def test_one_choice_per_stage():
    space = MobilenetV3Small()
    assert [c.name for c in space.choices] == [f"stage{i}" for i in range(1, 5 + 1)]
    assert space.choices[1].options[space.reference[1]] == "k3 e1 c24 n2"

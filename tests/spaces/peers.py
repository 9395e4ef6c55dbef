"""What the MobileNets and torchvision's have in common."""

from __future__ import annotations

import torch

from sartor.costs.macs import Macs
from sartor.costs.params import Params
from sartor.networks import macs_params

SETTINGS = [{}, {"width": 0.35, "size": 96, "classes": 10}]
"""Of the space."""


def is_reference(kind, make, settings, full):
    """The reference has torchvision's weights, by name, shape and order, and its costs; `full` parameters at first."""
    space = kind(**settings)
    with torch.device("meta"):
        peer = make(width_mult=settings.get("width", 1.0), num_classes=settings.get("classes", 1000))
        ours = space.build(space.reference)
        macs, params = macs_params(peer, torch.zeros(1, *space.input_shape))
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in peer.state_dict().items()}
    assert list(ours.state_dict()) == list(peer.state_dict())
    assert Macs(space)([space.reference]).item() == macs
    assert Params(space)([space.reference]).item() == params
    assert settings or params == full


def computes_the_same(kind, make):
    """With torchvision's weights."""
    space = kind(width=0.25, size=32, classes=4)
    peer = make(width_mult=0.25, num_classes=4).eval()
    ours = space.build(space.reference).eval()
    ours.load_state_dict(peer.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(x), peer(x))

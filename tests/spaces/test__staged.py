from __future__ import annotations

import pytest
import torch
from torchvision.ops.misc import SqueezeExcitation

from sartor import archs
from sartor.core.errors import ConfigError
from sartor.core.rng import numpy_rng
from sartor.spaces._staged import Squeeze
from sartor.spaces.mobilenet_v2 import MobilenetV2
from sartor.spaces.mobilenet_v3_large import MobilenetV3Large
from sartor.spaces.mobilenet_v3_small import MobilenetV3Small
from spaces.counting import assert_costs_equal_a_count

SMALL = {"size": 40, "width": 0.3, "classes": 7, "in_channels": 2, "expansions": (0.2, 1.5), "filters": (0.5, 1.7)}
SPACES = [MobilenetV2, MobilenetV3Large, MobilenetV3Small]


@pytest.mark.parametrize("space", [cls(**SMALL) for cls in SPACES], ids=[cls.__name__ for cls in SPACES])
def test_costs_equal_a_count_on_the_real_network(space):
    rng = numpy_rng(0)
    batch = [archs.smallest(space), archs.largest(space), *(space.moves.draw(rng) for _ in range(4))]
    assert_costs_equal_a_count(space, batch)


def test_every_table_of_the_peak_depends_on_neighbouring_stages():
    for step in MobilenetV2(**SMALL).steps():
        live = [i for i, u in enumerate(step.unary) if u.any()]
        assert len(live) + len(step.pairwise) <= 1
        assert all(j == i + 1 for i, j in step.pairwise)


def test_squeeze_and_excitation_is_torchvision_s():
    ours, theirs = Squeeze(8, 2), SqueezeExcitation(8, 2, scale_activation=torch.nn.Hardsigmoid)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("cls", SPACES)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0.0}, "width must be positive"),
        ({"kernels": (3, 4)}, "kernels must be odd"),
        ({"expansions": (0.0,)}, "expansions and filters must be positive"),
        ({"filters": (-1.0,)}, "expansions and filters must be positive"),
        ({"classes": 0}, "classes, size and in_channels must be at least 1"),
    ],
)
def test_wrong_settings_are_explained(cls, settings, message):
    with pytest.raises(ConfigError, match=message):
        cls(**settings)

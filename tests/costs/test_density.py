from __future__ import annotations

import pytest
import torch

from sartor.core.errors import ConfigError
from sartor.costs.density import Density
from sartor.spaces.blocks import Blocks
from sartor.spaces.tiny import Tiny


def test_of_a_residual_block():
    """Input, two convolutions, a sum, the output: five nodes; 0-1, 1-2, 0-3, 2-3, 3-output."""
    space = Blocks(layers=4)
    found = Density(space)([space.reference])
    assert found.dtype == torch.float64
    assert found.tolist() == [1.0]


def test_absent_layers_do_not_count():
    one, more = Blocks(layers=3), Blocks(layers=6)
    code = [("conv3", 0, 0), ("conv5", 0, 0), ("concat", 1, 2)]
    assert Density(one)([one.arch(code)]).tolist() == Density(more)([more.arch(code)]).tolist()


def test_a_space_that_does_not_tell():
    with pytest.raises(ConfigError, match="Tiny does not tell density; take a space of graphs: blocks"):
        Density(Tiny())

from __future__ import annotations

import pytest
from torch import nn

from sartor.core.errors import ConfigError
from sartor.core.records import Operator
from sartor.spaces._operators import Catalogue


def test_operators_are_made_afresh_by_who_named_them_first():
    catalogue = Catalogue()
    one = catalogue.add("a", 3, 8, nn.ReLU)
    assert one == catalogue.add("a", 3, 8, nn.Tanh) == Operator("a", (3, 8, 8))
    assert isinstance(catalogue.module(one), nn.ReLU)
    assert catalogue.module(one) is not catalogue.module(one)
    with pytest.raises(ConfigError, match="no network of this space runs 'b'"):
        catalogue.module(Operator("b", (3, 8, 8)))

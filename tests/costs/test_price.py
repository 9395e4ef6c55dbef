from __future__ import annotations

import pytest
import torch

from sartor import archs
from sartor.core.abilities import Terms
from sartor.core.errors import CapabilityError
from sartor.costs.price import Price
from sartor.spaces.burger import Burger
from sartor.spaces.nats_size import NatsSize
from sartor.spaces.tiny import Tiny


def test_prices_add_up():
    price, every = Price(Burger()), list(archs.enumerate_all(Burger()))
    assert isinstance(price, Terms)
    assert price([(0, 0, 0), (1, 2, 1), (3, 3, 3)]).tolist() == [4, 10, 29]
    assert torch.equal(price(every), price.terms()[0](every))


@pytest.mark.parametrize(("space", "message"), [(Tiny(), "needs Accounted"), (NatsSize(), "NatsSize does not have")])
def test_spaces_without_prices(space, message):
    with pytest.raises(CapabilityError, match=message):
        Price(space)

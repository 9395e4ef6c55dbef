from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from run.toys import Draws, Sum, Toy, problem
from sartor.core.abilities import Accounted, Described, Layered, Pretrained, Shareable, Terms, require
from sartor.core.errors import CapabilityError
from sartor.core.tables import Tables


class Additive(Sum):
    def terms(self) -> Sequence[Tables]:
        return (Tables(tuple(torch.arange(4, dtype=torch.float64) for _ in range(3))),)


def test_an_ability_is_handed_on_or_missed_by_name() -> None:
    cost = Additive()
    assert require(cost, Terms, "aows") is cost
    with pytest.raises(CapabilityError, match="aows needs Terms, which Sum does not offer"):
        require(Sum(), Terms, "aows")
    with pytest.raises(CapabilityError, match="Draws needs Shareable, which Toy does not offer"):
        require(Toy(), Shareable, Draws(problem(), 0))
    assert not isinstance(Toy(), Layered)


class Told(Toy, Accounted):
    """Has tables of MACs and of two steps."""

    def account(self, metric: str) -> Tables | None:
        return ones(1.0) if metric == "macs" else None

    def steps(self) -> Sequence[Tables]:
        return (ones(1.0), Tables(ones(0.0).unary, {}, 4.0))


def ones(factor: float) -> Tables:
    return Tables(tuple(factor * torch.arange(4, dtype=torch.float64) for _ in range(3)))


def test_who_has_tables_can_tell_and_who_leaves_something_out_cannot() -> None:
    archs = [(0, 1, 0), (3, 3, 3)]
    found: Any = Told().tally("macs", archs)
    assert found.tolist() == [1.0, 9.0]
    found = Told().tally("values", archs)
    assert found.tolist() == [4.0, 9.0]
    assert Told().tally("params", archs) is None

    class Silent(Toy, Accounted):
        pass

    assert isinstance(Silent(), Accounted)
    assert Silent().account("macs") is None
    assert list(Silent().steps()) == []
    assert Silent().tally("values", archs) is None


def test_a_space_may_come_with_weights_and_do_nothing_else() -> None:
    class Ready(Toy, Pretrained):
        trained = True

    space = Ready()
    assert isinstance(space, Pretrained)
    assert not space.reconstructs
    assert not space.reconstruct((0, 0, 0), nn.Identity(), [])
    assert not isinstance(Toy(), Pretrained)


def test_a_description_need_not_know_edges() -> None:
    class Rows(Toy, Described):
        pass

    assert Rows().edges((0, 0, 0)) is None
    assert not isinstance(Toy(), Described)

from __future__ import annotations

from itertools import pairwise

import torch

from sartor import archs
from sartor.core.abilities import Accounted
from sartor.core.contracts import Problem
from sartor.core.records import Constraint, Objective, Proposal
from sartor.costs.macs import Macs
from sartor.costs.memory import Memory
from sartor.costs.params import Params
from sartor.costs.price import Price
from sartor.evaluators.synthetic import Synthetic
from sartor.networks import macs_params
from sartor.spaces.burger import Burger

SPACE = Burger()
EVERY = list(archs.enumerate_all(SPACE))


def best(budget):
    """The tastiest burger for the money, by trying all."""
    problem = Problem(SPACE, (Objective("taste", "max"),), (Constraint("price", budget),), {"price": Price(SPACE)})
    taste = Synthetic(problem, metric="taste")
    return max((a for a in EVERY if problem.feasible(a)), key=lambda a: taste(Proposal(a), 0)["taste"])


def test_the_menu():
    assert len(EVERY) == 64
    assert isinstance(SPACE, Accounted)
    assert len({SPACE.key(a) for a in EVERY}) == 64
    prices = [Price(SPACE)([(i, i, i)]).item() for i in range(4)]
    assert all(a < b for a, b in pairwise(prices))  # the first of every layer is the cheapest
    assert (prices[0], prices[-1]) == (4, 29)
    assert SPACE.account("latency_ms") is None


def test_the_best_burger_depends_on_the_budget():
    assert SPACE.key(best(29)) == "brioche + wagyu + truffle"
    assert Price(SPACE)([best(29)]).item() == 24
    assert SPACE.key(best(10)) == "sesame + beef + cheese"
    assert SPACE.key(best(7)) == "toast + chicken + cheese"
    # Greedy from the top is wrong: the best bread is not in the best burger.
    assert best(10)[0] != 2


def test_the_network_is_counted_as_it_is():
    assert (Macs(SPACE)([(0, 1, 2)]).item(), Params(SPACE)([(0, 1, 2)]).item()) == (1, 2)
    assert macs_params(SPACE.build((0, 0, 0)), torch.zeros(1, 1)) == (1, 2)
    assert Memory(SPACE, bytes_per_value=1)([(0, 0, 0)]).item() == 2

from __future__ import annotations

import numpy as np
import pytest
import torch

from sartor.core.contracts import CostModel, Problem, Space
from sartor.core.records import Choice, Objective
from sartor.core.tables import Tables
from sartor.strategies.layernas.layers import Layers
from sartor.strategies.layernas.sweeps import Sweeps, dearest


class Plain(Space):
    def __init__(self, *sizes):
        self.choices = tuple(Choice(f"c{i}", tuple(range(k))) for i, k in enumerate(sizes))

    def build(self, arch):
        raise AssertionError("nothing here builds a network")


class Price(CostModel):
    metric = "price"

    def __init__(self, *columns):
        self.inner = Tables(tuple(torch.tensor(c, dtype=torch.float64) for c in columns))

    def __call__(self, archs):
        return self.inner(archs)

    def terms(self):
        return (self.inner,)


def layers_of(limit, *columns, buckets=20):
    space = Plain(*map(len, columns))
    problem = Problem(space, (Objective("accuracy", "max"),), (), {"price": Price(*columns)})
    return Layers(problem, {"price": limit}, buckets)


def swept(sweeps, loss, seen, steps=1, seed=0):
    """The networks asked for, step by step."""
    rng, asked = np.random.default_rng(seed), []
    for _ in range(steps):
        asked.append(sweeps.ask(rng, seen))
        seen |= {arch: loss(arch) for arch in asked[-1]}
        sweeps.tell([(arch, seen[arch]) for arch in asked[-1]])
    return asked


def test_the_dearest_options_are_the_default():
    assert dearest(layers_of(3, [0, 2, 1], [5, 1])) == (1, 0)
    assert dearest(layers_of(3, [1, 1], [0, 0])) == (1, 1)


def test_options_are_tried_layer_by_layer_with_the_dearest_in_all_later_ones():
    sweeps = Sweeps(layers_of(4, [0, 1, 2, 3], [0, 1, 2, 3], [0, 9]), 10, 10)
    first, second, third = swept(sweeps, sum, {}, steps=3)
    assert sorted(first) == [(0, 3, 1), (1, 3, 1), (2, 3, 1), (3, 3, 1)]
    # Those with option 3 have been seen; of the others those stay that the cheapest completion can save.
    assert sorted(second) == [
        (0, 0, 1),
        (0, 1, 1),
        (0, 2, 1),
        *((1, k, 1) for k in range(3)),
        *((2, k, 1) for k in range(3)),
        (3, 0, 1),
        (3, 1, 1),
    ]
    # The last layer: 9 is too dear for all, and every bucket of two layers has one network, the best.
    assert sorted(map(sum, third)) == [0, 1, 2, 3, 4]
    assert all(arch[2] == 0 for arch in third)


def test_the_best_network_of_a_bucket_is_expanded():
    losses = {(0, 2): 5.0, (1, 2): 3.0, (2, 2): 4.0}
    sweeps = Sweeps(layers_of(10, [1, 1, 1], [0, 1, 2]), 1, 3)
    _, second = swept(sweeps, lambda a: losses.get(a, 9.0), {}, steps=2)
    assert sorted(second) == [(1, 0), (1, 1)]
    assert sweeps.tables[1] == {0: (1, 2)}


def test_parents_and_children_are_limited_and_the_next_sweeps_try_the_rest():
    sweeps, seen = Sweeps(layers_of(18, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]), 2, 3), {}
    asked = swept(sweeps, sum, seen, steps=4)
    assert [len(a) for a in asked] == [3, 6, 6, 2]
    assert all(arch[1:] == (4, 4) for arch in asked[3])
    for seed in range(100):
        if not swept(sweeps, sum, seen, seed=seed)[0]:
            break
    else:
        pytest.fail("it does not end")
    assert len(seen) <= 5**3


def test_networks_seen_elsewhere_take_their_place_without_a_trial():
    sweeps = Sweeps(layers_of(10, [0, 1], [0, 1]), 5, 5)
    asked = swept(sweeps, sum, {(0, 1): 1.0, (1, 1): 2.0}, steps=1)
    assert sorted(asked[0]) == [(0, 0), (1, 0)]
    assert sorted(sweeps.tables[1].values()) == [(0, 1), (1, 1)]


def test_failed_networks_have_no_place():
    sweeps = Sweeps(layers_of(10, [0, 1], [0, 1]), 5, 5)
    asked = swept(sweeps, lambda a: np.inf, {}, steps=2)
    assert sorted(asked[0]) == [(0, 1), (1, 1)]
    assert asked[1] == []
    assert sweeps.tables[1:] == [{}, {}]


def test_it_can_be_put_back():
    one, two = (Sweeps(layers_of(6, [0, 1, 2], [0, 1, 2], [0, 1, 2]), 2, 2) for _ in range(2))
    seen = {}
    swept(one, sum, seen, steps=4)
    two.load_state_dict(one.state_dict())
    assert two.ask(np.random.default_rng(7), seen) == one.ask(np.random.default_rng(7), seen)
    assert two.tables == one.tables

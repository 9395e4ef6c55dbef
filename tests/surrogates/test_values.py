from __future__ import annotations

from itertools import product

import numpy as np

from sartor.surrogates.values import Values


def every(sizes):
    return np.array(list(product(*map(range, sizes))))


def random(sizes, rng):
    d = sum(sizes)
    pairs = rng.normal(size=(d, d))
    return Values(1.5, rng.normal(size=d), pairs + pairs.T, Values.zero(sizes).offsets)


def test_the_grid_holds_the_value_of_every_network_in_order():
    rng = np.random.default_rng(0)
    for sizes in ([5, 4, 6], [5, 3, 1], [4]):
        values = random(sizes, rng)
        np.testing.assert_allclose(values.grid(), values.at(every(sizes)))
    assert not Values.zero([2, 3]).grid().any()


def test_a_value_is_the_constant_its_options_and_its_pairs():
    values = random([2, 3, 2], np.random.default_rng(1))
    single, pairs = values.single, values.pairs
    wanted = 1.5 + single[1] + single[2 + 2] + single[5 + 0] + pairs[1, 4] + pairs[1, 5] + pairs[4, 5]
    assert np.isclose(values.at(np.array([[1, 2, 0]]))[0], wanted)
    assert values.block(1) == slice(2, 5)


def test_sums_are_sums():
    rng = np.random.default_rng(2)
    one, other = random([3, 4], rng), random([3, 4], rng)
    np.testing.assert_allclose((one + other).grid(), one.grid() + other.grid())

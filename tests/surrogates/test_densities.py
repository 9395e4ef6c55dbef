from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from sartor.core.records import Choice
from sartor.surrogates.densities import Density, Shape

CHOICES = (
    Choice("op", ("a", "b", "c")),
    Choice("width", (8, 16, 24, 32, 40), ordered=True),
    Choice("skip", (False, True)),
)
EVERY = np.array(list(product(range(3), range(5), range(2))))
POINTS = np.array([[0, 1, 0], [0, 2, 0], [2, 1, 1], [0, 1, 0]])


def test_bandwidths_by_hand():
    rule = 1.06 * 4 ** (-1 / 7)
    sigma = [np.sqrt((1 - 0.75**2 - 0.25**2) / 2), np.std([1, 2, 1, 1]), np.std([0, 0, 1, 0])]
    assert np.allclose(Shape(CHOICES, 1e-3).bandwidths(POINTS), rule * np.array(sigma))
    assert (Shape(CHOICES, 0.5).bandwidths(POINTS) == np.maximum(0.5, rule * np.array(sigma))).all()


def test_kernels_by_hand():
    kernels = Shape(CHOICES, 0.1).kernels(np.array([0.3, 0.8, 9.0]))
    assert np.allclose(kernels[0, :3, :3], [[0.7, 0.15, 0.15], [0.15, 0.7, 0.15], [0.15, 0.15, 0.7]])
    bell = np.exp(-0.5 * (np.arange(5) - 1) ** 2 / 0.64)
    assert np.allclose(kernels[1, :, 1], bell / bell.sum())
    assert np.allclose(kernels[2, :2, :2], 0.5)  # no wider than uniform
    assert (kernels[0, 3:] == 0).all()


def test_a_density_is_the_mean_of_products_and_sums_to_one():
    density = Density(Shape(CHOICES, 0.2), POINTS)
    k = density.kernels
    arch = (2, 3, 0)
    wanted = np.mean([k[0, arch[0], p[0]] * k[1, arch[1], p[1]] * k[2, arch[2], p[2]] for p in POINTS])
    assert density(np.array([arch]))[0] == pytest.approx(wanted)
    assert density(EVERY).sum() == pytest.approx(1.0)


def test_draws_follow_the_density():
    density, rng = Density(Shape(CHOICES, 0.2), POINTS), np.random.default_rng(0)
    drawn = density.draw(rng, 20_000, 1.0)
    shares = np.array([(drawn == a).all(1).mean() for a in EVERY])
    assert np.abs(shares - density(EVERY)).max() < 0.012
    wide = density.draw(rng, 20_000, 3.0)
    assert wide[:, 1].std() > drawn[:, 1].std() + 0.1

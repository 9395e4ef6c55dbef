from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sartor.core.records import Choice
from sartor.surrogates.anova import LEVEL, PAIRS, RESTS, Kernel, Surrogate

ORDERED = [Choice(n, tuple(range(k)), ordered=True) for n, k in (("a", 5), ("b", 4), ("c", 6))]
MIXED = [Choice("a", tuple(range(5)), ordered=True), Choice("op", ("x", "y", "z")), Choice("one", (1,))]


def every(choices):
    return np.array(list(product(*(range(len(c.options)) for c in choices))))


def learned(choices, count, function, seed=0, trends=None):
    archs = np.random.default_rng(seed).permutation(every(choices))[:count]
    model = Surrogate(choices, trends)
    for arch in archs:
        model.add(tuple(arch.tolist()), function(arch))
    return model, archs


def prior(model, archs, others):
    """By definition: one network against another, choice by choice."""
    offsets, kernel = np.array(model.offsets[:-1]), model.kernel
    found = np.zeros((len(archs), len(others)))
    for n, a in enumerate(archs + offsets):
        for m, b in enumerate(others + offsets):
            factors = [kernel.pair[i, j] for i, j in zip(a, b, strict=True)]
            products = sum(f * g for i, f in enumerate(factors) for g in factors[:i])
            found[n, m] = LEVEL + sum(kernel.single[i, j] for i in a for j in b) + PAIRS[model.at[1]] * products
    return found


def posterior(model, archs, y, others):
    """Mean and covariance by the textbook, in the units of the model."""
    y = np.maximum(y, 2 * np.median(y) - y.max())
    z = (y - y.mean()) / y.std()
    inverse = np.linalg.inv(prior(model, archs, archs) + RESTS[model.at[2]] * np.eye(len(archs)))
    unit = z @ inverse @ z / len(z)
    cross = prior(model, others, archs)
    return cross @ inverse @ z, unit * (prior(model, others, others) - cross @ inverse @ cross.T), unit


def bumpy(arch):
    return float(np.sin(arch[0]) + 0.3 * arch[1] * arch[-1] + (7 * arch.sum() % 5) / 9)


@pytest.mark.parametrize("choices", [ORDERED, MIXED])
@pytest.mark.parametrize("count", [3, 14])
def test_mean_and_covariance_are_the_textbooks(choices, count):
    trends = np.random.default_rng(1).normal(size=(2, sum(len(c.options) for c in choices)))
    model, archs = learned(choices, count, bumpy, trends=trends)
    others = every(choices)[::3]
    mean, covariance, unit = posterior(model, archs, np.array([bumpy(a) for a in archs]), others)
    np.testing.assert_allclose(model.values().at(others), mean, atol=1e-7)
    np.testing.assert_allclose(model.covariance(others), covariance, atol=1e-7)
    np.testing.assert_allclose(model.variance(others), covariance.diagonal(), atol=1e-7)
    assert model.rest == pytest.approx(RESTS[model.at[2]] * unit)
    np.testing.assert_allclose(model.fitted(1.0), model.values().at(archs), atol=1e-6)


@pytest.mark.parametrize("choices", [ORDERED, MIXED])
def test_draws_have_the_posterior_mean_and_covariance(choices):
    trends = np.random.default_rng(1).normal(size=(1, sum(len(c.options) for c in choices)))
    model, _ = learned(choices, 9, bumpy, trends=trends)
    index, rng = every(choices)[::4], np.random.default_rng(0)
    draws = np.array([model.draw(rng).at(index) for _ in range(4000)])
    covariance = model.covariance(index)
    spread = np.sqrt(covariance.diagonal())
    np.testing.assert_allclose(draws.mean(0), model.values().at(index), atol=0.08 * spread.max())
    assert np.abs(np.cov(draws.T) - covariance).max() < 0.1 * covariance.max()


def test_without_noise_the_values_fitted_are_those_told():
    model, archs = learned(ORDERED, 20, bumpy)
    y = np.array([bumpy(a) for a in archs])
    np.testing.assert_allclose(model.fitted(0.0) * model.scale, y - y.mean(), atol=1e-9)


def test_smooth_effects_are_learned_from_few_networks():
    def value(arch):
        return 3 * (1 - np.exp(-arch[0])) + arch[1] ** 0.5 + 0.1 * arch[0] * arch[2]

    model, _ = learned(ORDERED, 24, value)
    index = every(ORDERED)
    truth = np.array([value(a) for a in index])
    model_values = model.values().at(index) * model.scale
    upper = truth > np.median(truth)  # the lowest values are cut off
    assert (model_values - truth)[upper].std() < 0.25 * truth[upper].std()


def test_pure_noise_is_taken_for_what_is_left_to_each_network():
    rng = np.random.default_rng(0)
    model, _ = learned(ORDERED, 60, lambda a: float(rng.normal()))
    assert RESTS[model.at[2]] == max(RESTS)
    assert np.sqrt(model.rest) > 0.5


def test_trends_couple_the_choices():
    """Where dearer options of one choice are better, dearer ones of another are expected to be, too."""
    cost = np.concatenate([np.arange(k) for k in (5, 4, 6)])[None].astype(float)
    low, high, other_low, other_high = np.eye(15)[[0, 4, 5, 8]]
    for scale in (1.0, 100.0):
        kernel = Surrogate(ORDERED, scale * cost).kernel.single
        assert (high - low) @ kernel @ (other_high - other_low) > 0.5
    assert (high - low) @ Surrogate(ORDERED).kernel.single @ (other_high - other_low) == 0
    same = Surrogate(ORDERED, np.ones((1, 15))).kernel.single
    assert (same == Surrogate(ORDERED).kernel.single).all()


def test_the_worst_values_do_not_drown_the_rest():
    model, _ = learned(ORDERED, 30, lambda a: -1e6 if a[0] == 0 else float(a[1]))
    best = every(ORDERED)[int(model.values().grid().argmax())]
    assert best[0] > 0
    assert best[1] == 3


def test_equal_values_and_single_networks_are_no_error():
    for count in (1, 2, 20):
        model, _ = learned(MIXED[:1] if count < 3 else ORDERED, count, lambda a: 1.0)
        assert np.isfinite(model.values().grid()).all()
        assert model.scale == 1.0


def test_equal_sequences_give_equal_bits():
    one, _ = learned(ORDERED, 33, bumpy)
    two, archs = learned(ORDERED, 20, bumpy)
    two.values(), two.variance(archs), two.fitted(0.5)  # asking in between changes nothing
    for arch in np.random.default_rng(0).permutation(every(ORDERED))[20:33]:
        two.add(tuple(arch.tolist()), bumpy(arch))
    assert (one.values().grid() == two.values().grid()).all()


LARGE = [Choice(f"c{i}", tuple(range(k)), ordered=i % 2 == 0) for i, k in enumerate((5, 5, 4, 3, 4, 2))]


def test_after_thousands_of_additions_it_is_still_the_textbooks():
    """Random networks of 2,400, of which many come again, with values that depend on few choices and hardly any noise.

    Cost per addition is that of a row, so that thousands are seconds; mean and covariance are compared with a solve.
    """
    rng, model = np.random.default_rng(3), Surrogate(LARGE)
    archs = rng.permutation(every(LARGE))[rng.integers(1600, size=2200)]
    y = np.array([a[0] + 0.5 * a[2] * a[3] + 1e-9 * rng.normal() for a in archs])
    for arch, value in zip(archs, y, strict=True):
        model.add(tuple(arch.tolist()), value)
    others = every(LARGE)[::97]
    gram = model._prior(*model._rows(archs)[1:], model._rows(archs)[0])
    np.testing.assert_allclose(gram[:4, :50], prior(model, archs[:4], archs[:50]), atol=1e-10)
    cross = model._prior(*model._rows(others)[1:], model._rows(archs)[0])
    whole = gram + RESTS[model.at[2]] * np.eye(len(archs))
    z = np.maximum(y, 2 * np.median(y) - y.max())
    z = (z - z.mean()) / z.std()
    assert model.sound
    assert model.nugget == 0
    assert RESTS[model.at[2]] == min(RESTS)  # as badly conditioned as it gets
    np.testing.assert_allclose(model.values().at(others), cross @ np.linalg.solve(whole, z), atol=1e-6)
    unit = z @ np.linalg.solve(whole, z) / len(z)
    own = model._prior(*model._rows(others)[1:], model._rows(others)[0])
    wanted = unit * (own - cross @ np.linalg.solve(whole, cross.T))
    np.testing.assert_allclose(model.covariance(others), wanted, atol=1e-8 * unit)
    np.testing.assert_allclose(model.variance(others), wanted.diagonal(), atol=1e-8 * unit)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=40),
    st.sampled_from([1e-300, 1e-12, 1e-3, 1.0, 1e6, 1e12, 1e150]),
    st.sampled_from([0.0, 1e-12, 1e-6, 1.0]),
    st.sampled_from([0.0, 1.0, -1e3]),
    st.integers(0, 99),
)
def test_no_data_upset_it(archs, scale, noise, offset, seed):
    """Repeated, nearly equal and constant values of any size, against a direct solve."""
    rng, model = np.random.default_rng(seed), Surrogate(ORDERED)
    kind, archs = seed % 3, np.array(archs)
    y = [scale * (offset + [0.1, float(a[0] % 2), float(a.sum())][kind] + noise * rng.normal()) for a in archs]
    for arch, value in zip(archs, y, strict=True):
        model.add(tuple(arch.tolist()), value)
    assert model.sound
    index = every(ORDERED)
    mean, variance = model.values().at(index), model.variance(index)
    whole = prior(model, archs, archs) + (RESTS[model.at[2]] + model._factor.nugget) * np.eye(len(archs))
    cross, z = prior(model, index, archs), model._z
    np.testing.assert_allclose(mean, cross @ np.linalg.solve(whole, z), atol=1e-5)
    assert np.abs(z).max() < 10
    assert np.isfinite(model.draw(rng).at(index)).all()
    explained = (cross * np.linalg.solve(whole, cross.T).T).sum(1)
    np.testing.assert_allclose(variance / model._unit, _own(model, index) - explained, atol=1e-6)


def _own(model, index):
    return np.array([prior(model, a[None], a[None])[0, 0] for a in index])


@pytest.mark.parametrize("scale", [2.0**-40, 1.0, 2.0**40])
def test_the_unit_of_the_values_changes_nothing(scale):
    one, archs = learned(ORDERED, 30, bumpy)
    other, _ = learned(ORDERED, 30, lambda a: scale * bumpy(a))
    assert (one.values().grid() == other.values().grid()).all()
    assert (one.variance(archs) == other.variance(archs)).all()
    assert one.scale * scale == other.scale


def test_rounding_is_no_difference():
    """Ten times a tenth: equal numbers have a mean that is another one."""
    model, _ = learned(ORDERED, 20, lambda a: 0.1)
    assert not model.values().grid().any()
    model, _ = learned(ORDERED, 20, lambda a: 1e12 + 1e-4 * int(a.sum() % 2))
    assert not model.values().grid().any()


def test_what_has_no_covariance_is_said_to_have_none():
    model, _ = learned(ORDERED, 7, bumpy)
    assert model.sound
    bad = Kernel(model.kernel.single - 50 * np.eye(15), model.kernel.pair)
    good, model.kernels = model.kernels, [bad] * len(model.kernels)
    for arch in every(ORDERED)[:9]:
        model.add(tuple(arch.tolist()), bumpy(arch))
    assert not model.sound
    model.kernels = good
    for arch in every(ORDERED)[9:40]:
        model.add(tuple(arch.tolist()), bumpy(arch))
    assert model.sound


def test_large_trends_do_not_overflow():
    trend = np.arange(15.0)[None]
    large, small = (Surrogate(ORDERED, scale * trend).kernel.single for scale in (1e200, 1.0))
    np.testing.assert_allclose(large, small)

"""Against direct solves, for covariances as bad as they get."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sartor.cholesky import LEAST, NUGGETS, Factor, factored
from sartor.core.errors import SingularError

SCALES = (1e-12, 1e-6, 1.0, 1e6, 1e12)


def covariance(x, y, scale=1.0):
    """Squared exponential, between points `(n, d)` and `(m, d)`."""
    return scale * np.exp(-0.5 * ((x[:, None] - y[None]) ** 2).sum(2))


def grown(points, rest, scale=1.0):
    factor = Factor()
    factor.start(covariance(points[:1], points[:1], scale) + rest * scale)
    for n in range(1, len(points)):
        row = covariance(points[n : n + 1], points[: n + 1], scale)[0]
        row[-1] += rest * scale
        if not factor.append(row):
            factor.start(covariance(points[: n + 1], points[: n + 1], scale) + rest * scale * np.eye(n + 1))
    return factor


def clumped(rng, count):
    """Points of which a third are repeated, a third nearly equal to others, and a third their own."""
    own = rng.normal(size=(count, 2))
    third = count // 3
    own[third : 2 * third] = own[:third]
    own[2 * third : 3 * third] = own[:third] + 1e-9 * rng.normal(size=(third, 2))
    return own[rng.permutation(count)]


@pytest.mark.parametrize("scale", SCALES)
def test_two_thousand_rows_later_it_is_still_the_factor(scale):
    rng = np.random.default_rng(0)
    points, y = clumped(rng, 2000), rng.normal(size=2000)
    rest = 1e-6
    factor = grown(points, rest, scale)
    whole = covariance(points, points, scale) + rest * scale * np.eye(2000)
    assert factor.share == 0
    assert np.abs(factor.lower @ factor.lower.T - whole).max() < 1e-13 * scale
    assert np.abs(whole @ factor.solve(y) - y).max() < 1e-6  # the direct solve leaves as much
    direct = np.linalg.solve(whole, y)
    assert np.linalg.norm(factor.solve(y) - direct) < 1e-6 * np.linalg.norm(direct)
    cross = covariance(points, rng.normal(size=(9, 2)), scale)
    np.testing.assert_allclose(cross.T @ factor.solve(y), cross.T @ direct, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.sampled_from(SCALES), st.integers(0, 99))
def test_without_any_noise_repeated_points_get_a_nugget(places, scale, seed):
    """The mean then passes the values of all points within the nugget, and nothing explodes."""
    points = np.array(places, dtype=float)[:, None]
    values = np.random.default_rng(seed).normal(size=6)[places]
    factor = grown(points, 0.0, scale)
    assert factor.count == len(places)
    assert (factor.share > 0) == (len(set(places)) < len(places))
    assert factor.nugget == pytest.approx(factor.share * scale)
    weights = factor.solve(values)
    whole = covariance(points, points, scale)
    np.testing.assert_allclose((whole + factor.nugget * np.eye(len(places))) @ weights, values, atol=1e-5)
    np.testing.assert_allclose(whole @ weights, values, atol=2e-3)
    new = covariance(points, np.array([[2.5]]), scale)[:, 0]
    assert abs(new @ weights) < 1e2
    assert 0 <= scale - factor.whitened(new) @ factor.whitened(new) <= scale


def test_a_row_that_adds_nothing_changes_nothing():
    factor = Factor()
    factor.start(np.array([[2.0, 1.0], [1.0, 2.0]]))
    before = factor.lower.copy()
    assert not factor.append(np.array([2.0, 1.0, 2.0]))
    assert factor.count == 2
    assert (factor.lower == before).all()
    assert factor.append(np.array([2.0, 1.0, 2.0 + 4 * LEAST]))
    assert not Factor().append(np.array([0.0]))


def test_growing_and_starting_anew_are_the_same():
    rng = np.random.default_rng(1)
    root = rng.normal(size=(40, 40))
    whole, factor, at_once = root @ root.T, Factor(), Factor()
    for n in range(40):
        assert factor.append(whole[n, : n + 1])
    at_once.start(whole)
    np.testing.assert_allclose(factor.lower, at_once.lower, atol=1e-10)
    assert factor.logarithm == pytest.approx(np.linalg.slogdet(whole)[1] / 2)
    b = rng.normal(size=(40, 3))
    np.testing.assert_allclose(factor.solve(b), np.linalg.solve(whole, b), rtol=1e-6)
    np.testing.assert_allclose(at_once.lower @ factor.whitened(b), b, atol=1e-10)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_what_is_no_covariance_is_an_error_and_leaves_no_factor(bad):
    factor = Factor()
    factor.start(np.eye(2))
    with pytest.raises(SingularError, match="not finite"):
        factor.start(np.array([[1.0, 0.0], [0.0, bad]]))
    assert factor.count == 0
    with pytest.raises(SingularError, match="nugget of up to"):
        factored(torch.tensor([[1.0, 0.0], [0.0, bad]], dtype=torch.float64))


@pytest.mark.parametrize("scale", SCALES)
def test_tensors_alike(scale):
    rng = np.random.default_rng(2)
    points = clumped(rng, 30)
    whole = torch.from_numpy(covariance(points, points, scale))
    lower, share = factored(whole)
    assert share in NUGGETS[1:]
    torch.testing.assert_close(
        lower @ lower.T, whole + share * scale * torch.eye(30).double(), rtol=0, atol=scale / 1e12
    )
    assert factored(whole + scale * torch.eye(30))[1] == 0
    both, shared = factored(torch.stack([whole, whole + scale * torch.eye(30)]))
    assert shared == share
    torch.testing.assert_close(both[0], lower)


def test_gradients_flow_through_the_factor():
    root = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: factored(r @ r.T + torch.eye(4))[0], [root])

"""Against direct inversion, one process per point left out, GPyTorch and BoTorch."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from sartor.core.errors import SingularError
from sartor.surrogates.gaussian import (
    Posterior,
    draw,
    improvement,
    leave_one_out,
    log_improvement,
    predictive,
    rbf,
)

ALPHA, BETA = 0.3, 0.05


@pytest.fixture
def data():
    rng = torch.Generator().manual_seed(0)
    points = torch.randn(9, 3, generator=rng, dtype=torch.float64)
    return points, torch.randn(9, generator=rng, dtype=torch.float64), torch.randn(5, 3, generator=rng).double()


def noisy(points):
    return rbf(points, points, ALPHA) + BETA * torch.eye(len(points), dtype=torch.float64)


def test_kernel_by_hand():
    a, b = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 2.0]])
    assert torch.allclose(rbf(a, b, 0.5), torch.tensor([[math.exp(-4)], [math.exp(-2)]]))
    assert torch.equal(rbf(a, a, 0.01).diagonal(), torch.ones(2))


def test_leaving_out_is_fitting_without(data):
    points, y, _ = data
    mean, variance = leave_one_out(noisy(points), y)
    for i in range(len(y)):
        rest = [j for j in range(len(y)) if j != i]
        inverse = torch.linalg.inv(noisy(points[rest]))
        cross = rbf(points[rest], points[[i]], ALPHA)[:, 0]
        assert torch.isclose(mean[i], cross @ inverse @ y[rest])
        assert torch.isclose(variance[i], 1 + BETA - cross @ inverse @ cross)


def test_predictive_density(data):
    points, y, _ = data
    mean, variance = (t.numpy() for t in leave_one_out(noisy(points), y))
    wanted = norm.logpdf(y.numpy(), mean, variance**0.5).mean()
    assert float(predictive(noisy(points), y)) == pytest.approx(wanted)


def test_posterior_is_direct_inversion(data):
    points, y, new = data
    inverse, cross = torch.linalg.inv(noisy(points)), rbf(points, new, ALPHA)
    mean, variance = Posterior(points, y, ALPHA, BETA)(new)
    assert torch.allclose(mean, cross.T @ inverse @ y)
    assert torch.allclose(variance, 1 + BETA - (cross.T @ inverse @ cross).diagonal())


def test_a_variance_scales_the_kernel(data):
    points, y, new = data
    inverse = torch.linalg.inv(3.0 * rbf(points, points, ALPHA) + BETA * torch.eye(9).double())
    cross = 3.0 * rbf(points, new, ALPHA)
    posterior = Posterior(points, y, ALPHA, BETA, scale=3.0)
    mean, variance = posterior(new)
    assert torch.allclose(mean, cross.T @ inverse @ y)
    assert torch.allclose(variance, 3 + BETA - (cross.T @ inverse @ cross).diagonal())
    assert torch.allclose(posterior.joint(new)[1].diagonal() + BETA, variance)
    assert posterior.believing(new[0]).scale == 3.0


def test_draws_have_the_posteriors_moments(data):
    """Draws are a mean plus a matrix times normal numbers: unit vectors show the matrix."""
    points, y, new = data
    posterior, units = Posterior(points, y, ALPHA, BETA), torch.eye(5, dtype=torch.float64)
    middle = draw(*posterior.joint(new), torch.zeros(5).double())
    factor = torch.stack([draw(*posterior.joint(new), unit) - middle for unit in units], 1)
    cross = rbf(points, new, ALPHA)
    wanted = rbf(new, new, ALPHA) - cross.T @ torch.linalg.inv(noisy(points)) @ cross
    assert torch.allclose(middle, posterior(new)[0])
    assert torch.allclose(factor @ factor.T, wanted, atol=1e-5)


def test_points_that_coincide_can_be_drawn(data):
    points, y, new = data
    same = new[[0, 0, 0]]
    drawn = draw(*Posterior(points, y, ALPHA, BETA).joint(same), torch.tensor([1.0, -1.0, 0.5]).double())
    assert torch.allclose(drawn, drawn[0].expand(3), atol=0.01)


def test_a_belief_keeps_the_mean_and_narrows_the_variance(data):
    points, y, new = data
    before = Posterior(points, y, ALPHA, BETA)
    after = before.believing(new[0])
    assert torch.allclose(after(new)[0][0], before(new)[0][0])
    assert after(new)[1][0] < before(new)[1][0]
    assert (after(new)[1] <= before(new)[1] + 1e-12).all()


def test_improvement_by_simulation():
    rng = torch.Generator().manual_seed(0)
    mean, variance = torch.tensor([0.0, 1.0, -2.0]).double(), torch.tensor([1.0, 0.25, 4.0]).double()
    draws = mean + variance.sqrt() * torch.randn(200_000, 3, generator=rng).double()
    assert torch.allclose(improvement(mean, variance, 0.5), (draws - 0.5).clamp_min(0).mean(0), atol=0.01)


def test_logarithm_of_the_improvement_where_there_is_one_left():
    z = torch.linspace(-30, 5, 200, dtype=torch.float64)
    logs = log_improvement(2 * z + 1, torch.full_like(z, 4.0), 1.0)
    plain = improvement(2 * z + 1, torch.full_like(z, 4.0), 1.0)
    near = z > -6  # further off, the plain one is a difference of equal numbers
    assert torch.allclose(logs[near], plain[near].log(), atol=1e-6)
    far = log_improvement(torch.tensor([-1e2, -1e3, -1e5, -1e9]).double(), torch.ones(4).double(), 0.0)
    assert far.isfinite().all()
    assert (far.diff() < 0)[:3].all()


def test_same_as_gpytorch(data):
    gpytorch = pytest.importorskip("gpytorch")
    points, y, new = data

    class Exact(gpytorch.models.ExactGP):
        def __init__(self, likelihood):
            super().__init__(points, y, likelihood)
            self.mean_module = gpytorch.means.ZeroMean()
            self.covar_module = gpytorch.kernels.RBFKernel()

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    likelihood = gpytorch.likelihoods.GaussianLikelihood()
    model = Exact(likelihood).double()
    model.covar_module.lengthscale, likelihood.noise = math.sqrt(ALPHA), BETA
    objective = gpytorch.mlls.LeaveOneOutPseudoLikelihood(likelihood, model)
    model.train()
    assert float(predictive(noisy(points), y)) == pytest.approx(objective(model(points), y).item(), abs=1e-6)
    model.eval(), likelihood.eval()
    with torch.no_grad():
        theirs = likelihood(model(new))
    mean, variance = Posterior(points, y, ALPHA, BETA)(new)
    assert torch.allclose(mean, theirs.mean, atol=1e-6)
    assert torch.allclose(variance, theirs.variance, atol=1e-6)


def test_same_as_botorch():
    analytic = pytest.importorskip("botorch.acquisition.analytic")
    z = torch.linspace(-60, 5, 300, dtype=torch.float64)
    ours = log_improvement(z, torch.ones_like(z), 0.0)
    assert torch.allclose(ours, analytic._log_ei_helper(z), rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=40),
    st.sampled_from([0.0, 1e-15, 1e-9, 0.1]),
    st.sampled_from([1e-12, 1e-6, 1.0]),
    st.sampled_from([1e-12, 1.0, 1e12]),
    st.integers(0, 99),
)
def test_points_repeated_and_nearly_equal(places, apart, beta, scale, seed):
    """Means, variances and leave-one-out predictions against direct solves of the same covariance, any unit."""
    rng = torch.Generator().manual_seed(seed)
    points = torch.tensor(places, dtype=torch.float64)[:, None] + apart * torch.rand(len(places), 1, generator=rng)
    y, new = scale**0.5 * torch.sin(points[:, 0]), torch.tensor([[0.5], [3.0], [50.0]], dtype=torch.float64)
    posterior = Posterior(points, y, ALPHA, scale * beta, scale)
    whole = scale * rbf(points, points, ALPHA) + scale * (beta + posterior.nugget * (1 + beta)) * torch.eye(len(y))
    cross = scale * rbf(points, new, ALPHA)
    mean, variance = posterior(new)
    assert (posterior.nugget > 0) <= (beta < 1e-6)
    torch.testing.assert_close(mean, cross.T @ torch.linalg.solve(whole, y), rtol=0, atol=1e-3 * scale**0.5)
    wanted = scale * (1 + beta) - (cross * torch.linalg.solve(whole, cross)).sum(0)
    torch.testing.assert_close(variance, wanted, rtol=0, atol=1e-4 * scale)
    assert (variance >= 0).all()
    assert mean.abs().max() < 10 * scale**0.5
    assert draw(*posterior.joint(new[[0, 0, 1]]), torch.ones(3).double()).isfinite().all()
    if beta == 1.0 and len(y) > 1:
        means, variances = leave_one_out(whole, y)
        rest = list(range(1, len(y)))
        part = torch.linalg.solve(whole[rest][:, rest], whole[rest, 0])
        torch.testing.assert_close(means[0], part @ y[rest], rtol=1e-8, atol=1e-9 * scale**0.5)
        torch.testing.assert_close(variances[0], whole[0, 0] - part @ whole[rest, 0])


def test_beliefs_again_and_again_are_the_textbooks(data):
    """Two hundred picks at few places, each believed: nothing drifts."""
    points, y, new = data
    posterior = Posterior(points, y, ALPHA, 1e-6)
    for i in range(200):
        posterior = posterior.believing(new[i % 5])
    first, _ = Posterior(points, y, ALPHA, 1e-6)(points + 0.1)
    again, _ = posterior(points + 0.1)
    torch.testing.assert_close(again, first, rtol=0, atol=1e-5)


def test_what_is_not_finite_is_an_error(data):
    points, y, _ = data
    points[3, 1] = math.nan
    with pytest.raises(SingularError):
        Posterior(points, y, ALPHA, BETA)
    with pytest.raises(SingularError):
        predictive(noisy(points), y)

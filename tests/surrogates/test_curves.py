"""Against one large process over networks and epochs, inverted directly."""

from __future__ import annotations

import math

import pytest
import torch

from sartor.surrogates.curves import Targets, curved, plain, standardised
from sartor.surrogates.gaussian import Posterior, predictive, rbf

ALPHA, BETA = 0.3, 0.05


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotated(values, between):
    """Targets with a covariance between epochs that is given."""
    scales, vectors = torch.linalg.eigh(between)
    return Targets(values @ vectors, scales, vectors[-1])


@pytest.fixture
def between():
    a = numbers(3, 3, seed=1)
    return a @ a.T + 0.1 * torch.eye(3).double()


def direct(points, values, between, new):
    """Mean and variance of the last epoch's value at one new point, noise included."""
    n, e = values.shape
    whole = torch.kron(between, rbf(points, points, ALPHA)) + BETA * torch.eye(n * e).double()
    cross = torch.kron(between[:, -1:], rbf(points, new[None], ALPHA))[:, 0]
    mean = cross @ torch.linalg.solve(whole, values.T.reshape(-1))
    return mean, between[-1, -1] + BETA - cross @ torch.linalg.solve(whole, cross)


def test_the_posterior_is_that_of_the_large_process(between):
    points, values, new = numbers(7, 2), numbers(7, 3, seed=2), numbers(4, 2, seed=3)
    posterior = rotated(values, between).posterior(points, ALPHA, BETA)
    mean, variance = posterior(new)
    for i in range(4):
        wanted = direct(points, values, between, new[i])
        assert torch.allclose(torch.stack([mean[i], variance[i]]), torch.stack(wanted))
    middle, covariance = posterior.joint(new)
    assert torch.allclose(middle, mean)
    assert torch.allclose(covariance.diagonal() + BETA, variance)


def test_leaving_out_a_network_leaves_out_its_curve(between):
    points, values = numbers(6, 2), numbers(6, 3, seed=2)
    found = rotated(values, between).predictive(rbf(points, points, ALPHA), BETA)
    whole = torch.kron(between, rbf(points, points, ALPHA)) + BETA * torch.eye(18).double()
    y, total = values.T.reshape(-1), 0.0
    for i in range(6):
        out = torch.tensor([i, i + 6, i + 12])
        rest = torch.tensor([j for j in range(18) if j % 6 != i])
        part = torch.linalg.solve(whole[rest][:, rest], whole[rest][:, out])
        normal = torch.distributions.MultivariateNormal(
            part.T @ y[rest], whole[out][:, out] - whole[out][:, rest] @ part
        )
        total += normal.log_prob(y[out])
    assert torch.isclose(found, total / 6)


def test_values_alone_are_one_process():
    points, y, new = numbers(6, 2), numbers(6, seed=2), numbers(3, 2, seed=3)
    targets, kernel = plain(y), rbf(points, points, ALPHA)
    assert torch.equal(targets.final, y)
    assert torch.equal(targets.predictive(kernel, BETA), predictive(kernel + BETA * torch.eye(6).double(), y))
    for ours, theirs in zip(
        targets.posterior(points, ALPHA, BETA)(new), Posterior(points, y, ALPHA, BETA)(new), strict=True
    ):
        assert torch.allclose(ours, theirs)


def test_a_belief_is_of_the_whole_curve(between):
    points, values, new = numbers(7, 2), numbers(7, 3, seed=2), numbers(4, 2, seed=3)
    before = rotated(values, between).posterior(points, ALPHA, BETA)
    after = before.believing(new[0])
    assert torch.allclose(after(new)[0], before(new)[0])
    assert after(new)[1][0] < before(new)[1][0]


def worth_of(points):
    return torch.sin(2 * points[:, 0]) + points[:, 1]


def held_out(targets, points, new, truth):
    """Mean logarithm of the densities of true values at new points, in the units of the true values' spread."""
    mean, variance = targets.posterior(points, ALPHA, BETA)(new)
    return float(torch.distributions.Normal(mean, variance.sqrt()).log_prob(truth).mean())


def test_informative_curves_help_where_the_last_epoch_is_noisy():
    """Networks not seen are predicted better with their neighbours' early epochs than without."""
    gains = []
    for seed in range(10):
        points, new = numbers(40, 2, seed=seed), numbers(100, 2, seed=100 + seed)
        true, noise = worth_of(points), numbers(40, 4, seed=200 + seed)
        values = true[:, None] * torch.tensor([0.3, 0.6, 0.9, 1.0]) + noise * torch.tensor([0.1, 0.1, 0.1, 1.0])
        truth = (worth_of(new) - true.mean()) / true.std(correction=0)
        truth = truth * true.std(correction=0) / values[:, -1].std(correction=0)  # as the noisy values are standardised
        with_curves = held_out(curved(values, BETA), points, new, truth)
        gains.append(with_curves - held_out(plain(standardised(values[:, -1])), points, new, truth))
    gains = torch.tensor(gains)
    assert gains.mean() > 0.1
    assert (gains > 0).sum() >= 9


def test_curves_that_say_nothing_change_little():
    changes = []
    for seed in range(10):
        points, new = numbers(40, 2, seed=seed), numbers(100, 2, seed=100 + seed)
        y = worth_of(points)
        values = torch.cat([numbers(40, 2, seed=200 + seed), y[:, None]], 1)
        truth = (worth_of(new) - y.mean()) / y.std(correction=0)
        alone = held_out(plain(standardised(y)), points, new, truth)
        changes.append(held_out(curved(values, BETA), points, new, truth) - alone)
    assert abs(torch.tensor(changes).mean()) < 0.1


def test_covariance_between_epochs():
    """Two epochs that are the same up to scale, one that is not: read off the rotation."""
    a, b = numbers(50), numbers(50, seed=1)
    targets = curved(torch.stack([a, b, 3 * a + 7], 1), BETA)
    z = standardised(a)
    assert torch.allclose(targets.final, z)
    assert math.isclose(float(targets.last.square().sum()), 1.0)
    shared = 50 / 53
    wanted = torch.eye(3).double()
    wanted[0, 2] = wanted[2, 0] = shared
    wanted[0, 1] = wanted[1, 0] = wanted[1, 2] = wanted[2, 1] = shared * 1.05 * float((z * standardised(b)).mean())
    assert torch.allclose(targets.scales, torch.linalg.eigvalsh(wanted))


def test_what_is_missing_is_taken_from_the_last_epoch():
    values = numbers(20, 2)
    values[3, 0] = math.nan
    targets = curved(values, BETA)
    assert targets.columns.isfinite().all()
    lengths = targets.columns.square().sum(1)  # a rotation keeps them
    assert torch.isclose(lengths[3], 2 * targets.final[3] ** 2)
    z = torch.stack([standardised(column) for column in values.T], 1)
    assert torch.allclose(lengths[[0, 7]], z.square().sum(1)[[0, 7]])


def test_standardised():
    assert standardised(torch.tensor([1.0, 3.0])).tolist() == pytest.approx([-1, 1])
    low = standardised(torch.tensor([0.9, 0.8, 0.7, -1e9]).double())
    assert low[0] - low[1] == pytest.approx(float(low[1] - low[2]))
    assert standardised(torch.tensor([math.nan, math.nan])).isnan().all()


@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1.0, 1e12, 1e150])
def test_standardised_at_any_scale(scale):
    y = torch.tensor([1.0, 2.0, 4.0, 5.0], dtype=torch.float64)
    assert torch.allclose(standardised(scale * y), standardised(y), rtol=1e-12)
    assert float(standardised(scale * y).std(correction=0)) == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.7, 1e12])
def test_equal_values_are_no_differences(value):
    """Not even by rounding: ten times a tenth has a mean that is another number."""
    y = torch.full((10,), value, dtype=torch.float64)
    assert not standardised(y).any()
    nearly = y.clone()
    nearly[::3] = math.nextafter(value, math.inf) if value else 0.0
    assert not standardised(nearly).any()
    y[3] = math.nan
    assert standardised(y).isnan().sum() == 1
    assert curved(torch.stack([y, torch.full_like(y, value)], 1), BETA).columns.isfinite().all()

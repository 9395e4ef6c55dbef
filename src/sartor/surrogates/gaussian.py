"""Gaussian processes of zero mean on embedded networks: posterior, leave-one-out predictions, improvement.

Everything follows from one Cholesky factor, in float64. GPyTorch and BoTorch give the same numbers (the tests compare
with both), but their models bring hyperparameters, modes and lazy matrices that nothing here uses, where a search fits
hundreds of small processes whose kernel has nothing to learn but the embedding in front of it: this takes a quarter of
the time per training step, and no extra.

Sources: Rasmussen and Williams, "Gaussian processes for machine learning" (2006), algorithm 2.1 and equations 5.10 to
5.12; Ament et al., "Unexpected improvements to expected improvement" (NeurIPS 2023, arXiv:2310.20708), equation 9.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sartor.cholesky import factored

JITTER = 1e-6
"""Share of the mean variance that draws have of their own."""
_LOG_ROOT = 0.5 * math.log(2 * math.pi)


def rbf(a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """`exp(-|a_i - b_j|^2 / (2 alpha))` of points `(n, d)` and `(m, d)`, `(n, m)`."""
    squares = a.square().sum(-1)[:, None] + b.square().sum(-1) - 2 * a @ b.T
    return torch.exp(-squares.clamp_min(0.0) / (2 * alpha))


def leave_one_out(covariance: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """What each value is predicted to be by all the others, without fitting `n` processes.

    Args:
        covariance: Of the values, noise included, `(n, n)`.
        y: The values, `(n,)`.

    Returns:
        Means and variances, noise included, `(n,)` each: equations 5.12 of Rasmussen and Williams.

    Raises:
        SingularError: The covariance has no factor, whatever nugget is added.
    """
    inverse = torch.cholesky_inverse(factored(covariance)[0])
    variance = 1 / inverse.diagonal()
    return y - (inverse @ y) * variance, variance


def predictive(covariance: Tensor, y: Tensor) -> Tensor:
    """The mean logarithm of the leave-one-out densities: equations 5.10 and 5.11, over `n`."""
    mean, variance = leave_one_out(covariance, y)
    return -(_LOG_ROOT + 0.5 * variance.log() + 0.5 * (y - mean).square() / variance).mean()


class Posterior:
    """What values at some points say about values at others.

    Args:
        points: `(n, d)`, float64.
        y: `(n,)`.
        alpha: Of the kernel.
        beta: Variance of the noise.
        scale: Variance of the values before anything is known.

    Raises:
        SingularError: Their covariance has no factor, whatever nugget is added.
    """

    def __init__(self, points: Tensor, y: Tensor, alpha: float, beta: float, scale: float = 1.0) -> None:
        self.points, self.y, self.alpha, self.beta, self.scale = points, y, alpha, beta, scale
        noise = beta * torch.eye(len(points), dtype=points.dtype, device=points.device)
        noisy = scale * rbf(points, points, alpha) + noise
        self._factor, self.nugget = factored(noisy)
        self._weights = torch.cholesky_solve(y[:, None], self._factor)[:, 0]

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances, noise included, at `(m, d)`: `(m,)` each."""
        cross = self.scale * rbf(self.points, points, self.alpha)
        white = torch.linalg.solve_triangular(self._factor, cross, upper=False)
        return cross.T @ self._weights, (self.scale - white.square().sum(0)).clamp_min(0.0) + self.beta

    def joint(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the values without noise at `(m, d)`: `(m,)` and `(m, m)`."""
        cross = self.scale * rbf(self.points, points, self.alpha)
        white = torch.linalg.solve_triangular(self._factor, cross, upper=False)
        return cross.T @ self._weights, self.scale * rbf(points, points, self.alpha) - white.T @ white

    def believing(self, point: Tensor) -> Posterior:
        """The same once the value at a point, `(d,)`, is what its mean says: what a batch's next pick is made with.

        The covariance is factored anew, in O(n^3): nothing adds up from pick to pick.
        """
        mean, _ = self(point[None])
        points, y = torch.cat([self.points, point[None]]), torch.cat([self.y, mean])
        return Posterior(points, y, self.alpha, self.beta, self.scale)


def draw(mean: Tensor, covariance: Tensor, normal: Tensor) -> Tensor:
    """A draw from a joint distribution, `(m,)`, made of `(m,)` standard normal numbers.

    Raises:
        SingularError: The covariance has no factor, whatever nugget is added.
    """
    # embedded networks may coincide, and the distribution be a narrow one
    jitter = JITTER * float(covariance.diagonal().mean().clamp_min(1e-300)) * torch.eye(len(mean), dtype=mean.dtype)
    rest: Tensor = factored(covariance + jitter)[0] @ normal
    return mean + rest


def improvement(mean: Tensor, variance: Tensor, best: float) -> Tensor:
    """Expected positive part of normal variables less `best`, `(m,)`."""
    deviation = variance.sqrt()
    z = (mean - best) / deviation
    gain: Tensor = deviation * (_density(z) + z * torch.special.ndtr(z))
    return gain


def log_improvement(mean: Tensor, variance: Tensor, best: float) -> Tensor:
    """Its logarithm, also where it is too small for a number of its own."""
    deviation = variance.sqrt()
    z = (mean - best) / deviation
    near, far = z.clamp_min(-1.0), z.clamp(-1e6, -1.0)
    usual = (_density(near) + near * torch.special.ndtr(near)).log()
    share = torch.special.erfcx(-far / math.sqrt(2)) * far.abs() * math.sqrt(math.pi / 2)
    tail = torch.where(far > -1e4, torch.log1p(-share.clamp_max(1 - 1e-15)), -2 * far.abs().log())
    return deviation.log() + torch.where(z > -1, usual, -far.square() / 2 - _LOG_ROOT + tail)


def _density(z: Tensor) -> Tensor:
    return torch.exp(-0.5 * z.square() - _LOG_ROOT)

"""What a Gaussian process learns from: the values of networks, and of what they were worth after earlier epochs.

The values after `e` epochs are those of `e` correlated processes, with the same kernel on networks: the covariance of
network x after epoch i with network x' after epoch j is `B_ij k(x, x')`, with independent noise (the intrinsic model of
coregionalisation; Bonilla, Chai and Williams, "Multi-task Gaussian process prediction", NeurIPS 2007). With the
eigenvectors of B the values become those of independent processes, so that leaving one network out, with its whole
curve, takes one inverse per epoch and stays exact. Epochs that say nothing of the last one have B near the identity,
and change nothing.

B is the correlation between epochs over the networks evaluated, without the share of the noise, and shrunk towards the
identity as long as there are few networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sartor.surrogates.gaussian import Posterior, predictive

ROUNDING = 4 * torch.finfo(torch.float64).eps
"""Differences of values, as shares of the largest, that are none."""


@dataclass(frozen=True, eq=False)
class Targets:
    """Values of `n` networks as those of `m` independent processes.

    Attributes:
        columns: `(n, m)`, float64.
        scales: Variance of each process, `(m,)`.
        last: What counts is `columns @ last`; of length 1, `(m,)`.
    """

    columns: Tensor
    scales: Tensor
    last: Tensor

    def __len__(self) -> int:
        return len(self.columns)

    def __getitem__(self, index: Tensor) -> Targets:
        return Targets(self.columns[index], self.scales, self.last)

    @property
    def final(self) -> Tensor:
        """The values that count, `(n,)`."""
        return self.columns @ self.last

    def to(self, device: str) -> Targets:
        """On a device."""
        return Targets(self.columns.to(device), self.scales.to(device), self.last.to(device))

    def predictive(self, kernel: Tensor, beta: float) -> Tensor:
        """The mean logarithm of the densities of whole curves, each given all other networks.

        Args:
            kernel: Between networks, `(n, n)`.
            beta: Variance of the noise.
        """
        noise = beta * torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
        each = [predictive(s * kernel + noise, y) for s, y in zip(self.scales, self.columns.T, strict=True)]
        return torch.stack(each).sum()

    def posterior(self, points: Tensor, alpha: float, beta: float) -> Joint:
        """Given the networks' embeddings, `(n, d)`."""
        pairs = zip(self.scales.tolist(), self.columns.T, strict=True)
        return Joint([Posterior(points, y, alpha, beta, scale) for scale, y in pairs], self.last)


class Joint:
    """What independent processes say about the value that counts.

    Args:
        parts: The posterior of each.
        last: Their weights, `(m,)`.
    """

    def __init__(self, parts: Sequence[Posterior], last: Tensor) -> None:
        self.parts, self.last = parts, last
        self.nugget = max(part.nugget for part in parts)
        """The largest of any part, as a share of the mean variance."""

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances, noise included, at `(n, d)`: `(n,)` each."""
        return self._summed([part(points) for part in self.parts])

    def joint(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance without noise at `(n, d)`: `(n,)` and `(n, n)`."""
        return self._summed([part.joint(points) for part in self.parts])

    def believing(self, point: Tensor) -> Joint:
        """The same once the curve at a point, `(d,)`, is what its mean says."""
        return Joint([part.believing(point) for part in self.parts], self.last)

    def _summed(self, found: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        means, spreads = (torch.stack(parts) for parts in zip(*found, strict=True))
        return torch.tensordot(self.last, means, 1), torch.tensordot(self.last.square(), spreads, 1)


def plain(y: Tensor) -> Targets:
    """The values alone, `(n,)`."""
    one = torch.ones(1, dtype=y.dtype)
    return Targets(y[:, None], one, one)


def curved(values: Tensor, beta: float) -> Targets:
    """Values after every epoch, the last ones being those that count.

    Args:
        values: `(n, e)`, float64; each epoch is standardised on its own. What is missing (NaN) before the last epoch
            is taken to be as far from the others as the last one is.
        beta: Variance of the noise.
    """
    count, epochs = values.shape
    z = torch.stack([standardised(column) for column in values.T], 1)
    z = torch.where(z.isnan(), z[:, -1:], z)
    seen = (1 + beta) * (z.T @ z) / count
    shared = seen.clamp(-1, 1) * count / (count + epochs)
    shared.diagonal().fill_(1.0)
    scales, vectors = torch.linalg.eigh(shared)
    return Targets(z @ vectors, scales.clamp_min(0.0), vectors[-1])


def standardised(y: Tensor) -> Tensor:
    """Mean 0, variance 1, `(n,)`, NaNs left out; what is far below the median is brought nearer.

    Failures nearly as bad as can be would hide all else.
    """
    known = y[~y.isnan()]
    if not len(known):
        return y
    middle, top, largest = known.median(), known.max(), float(known.abs().max())
    spread = top - middle
    if not float(spread) > ROUNDING * largest:  # median and top alike: all below is cut off
        return torch.where(y.isnan(), y, 0.0)
    y, known = ((v.clamp_min(2 * middle - top) - middle) / spread for v in (y, known))
    return (y - known.mean()) / known.std(correction=0)

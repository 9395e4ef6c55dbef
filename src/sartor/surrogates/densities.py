"""Product-kernel densities over option indices, as the two that a tree of Parzen estimators compares.

Unordered choices have Aitchison and Aitken's kernel: the option itself with probability `1 - b`, the others share `b`.
Ordered ones have a normal kernel of width `b` options, cut off at the ends.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sartor.core.records import Choice
from sartor.surrogates.values import Floats, Ints


class Shape:
    """What the kernels of a space have in common.

    Args:
        choices: Of the space.
        least: Smallest bandwidth.
    """

    def __init__(self, choices: Sequence[Choice], least: float) -> None:
        self.sizes, self.least = np.array([len(c.options) for c in choices]), least
        self.ordered = np.array([c.ordered for c in choices])
        codes = np.arange(int(self.sizes.max()))
        self.codes, self.real = codes, codes < self.sizes[:, None]
        self._far = -0.5 * (codes[:, None] - codes) ** 2.0
        self._most = (self.sizes - 1) / self.sizes  # where Aitchison and Aitken's kernel is uniform

    def bandwidths(self, points: Ints) -> Floats:
        """The normal reference rule, `1.06 sigma m ** (-1 / (4 + n))`, one per choice, `(n,)`.

        For unordered choices sigma is such that it does not depend on the order of the options, and is the standard
        deviation where there are two.
        """
        m, n = points.shape
        shares = (points[:, :, None] == self.codes).sum(0) / m
        variance = shares @ self.codes**2 - (shares @ self.codes) ** 2
        sigma = np.sqrt(np.maximum(np.where(self.ordered, variance, (1 - (shares * shares).sum(1)) / 2), 0.0))
        return np.asarray(np.maximum(1.06 * sigma * m ** (-1 / (4 + n)), self.least))

    def kernels(self, bandwidths: Floats) -> Floats:
        """`K[i, x, p]`: probability of option `x` of choice `i` around a point at `p`, `(n, k, k)`."""
        wide = np.minimum(bandwidths, self._most)
        others = wide / np.maximum(self.sizes - 1, 1)
        same = self.codes[:, None] == self.codes
        flat = np.where(same, (1 - wide)[:, None, None], others[:, None, None])
        bell = np.exp(self._far / (bandwidths**2)[:, None, None])
        kernels = np.where(self.ordered[:, None, None], bell, flat) * self.real[:, :, None]
        return np.asarray(kernels / kernels.sum(1, keepdims=True))


class Density:
    """The mean of the kernels around points.

    Args:
        shape: Of the kernels.
        points: `(m, n)` option indices.
    """

    def __init__(self, shape: Shape, points: Ints) -> None:
        self.shape, self.points = shape, points
        self.bandwidths = shape.bandwidths(points)
        self.kernels = shape.kernels(self.bandwidths)
        self._place = np.arange(points.shape[1])

    def __call__(self, index: Ints) -> Floats:
        """Densities of `(c, n)` option indices, `(c,)`."""
        factors = self.kernels[self._place[:, None, None], index.T[:, :, None], self.points.T[:, None, :]]
        return np.asarray(factors.prod(0).mean(1))

    def draw(self, rng: np.random.Generator, count: int, widen: float) -> Ints:
        """`(count, n)` indices around points of the density, with bandwidths `widen` times as large."""
        sums = self.shape.kernels(self.bandwidths * widen).cumsum(1)
        around = self.points[rng.integers(len(self.points), size=count)]
        below = sums[self._place, :, around] < rng.random((*around.shape, 1))
        return np.asarray(np.minimum(below.sum(2), self.shape.sizes - 1))

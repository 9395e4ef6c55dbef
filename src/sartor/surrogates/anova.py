"""A Gaussian process on networks whose mean is a table: cheap to learn trial by trial, cheap to ask about all networks.

The value of a network is taken as a constant, an effect of each choice, products for each pair of choices, and a rest
of its own that nothing predicts. Effects of ordered choices are smooth with a trend, those of others are exchangeable.
This is an analysis of variance with a prior (Kaufman and Sain, Bayesian Analysis 2010), so that it is of use from the
first few trials on. The posterior mean is a sum of per-choice and pairwise tables. What is known to matter, such as the
cost, can be told as a trend: then the options of all choices teach about each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from sartor.cholesky import Factor
from sartor.core.errors import SingularError
from sartor.core.records import Arch, Choice
from sartor.surrogates.values import Floats, Ints, Values

SCALES = (0.15, 0.4, 1.0, 2.5)
"""Lengths over which effects of ordered choices change; their options lie in [0, 1]."""
PAIRS = (0.0025, 0.01, 0.04, 0.15, 0.5, 1.5)
"""Variance of all pairs of choices together, in units of that of the choices alone."""
RESTS = (1e-6, 1e-3, 4e-3, 0.015, 0.05, 0.15, 0.4, 1.0)
"""Variance of what is left to each network, in the same unit."""
LEVEL = 4.0
"""Variance of the constant, in the same unit: the values are standardised, but the networks tried are not typical."""
TREND = 0.5
"""Variance of all trends together, in the same unit."""
GROWTH = 1.4
"""The three above are chosen anew whenever there are so many times as many trials as when they were last chosen."""
ROUNDING = 4 * float(np.finfo(np.float64).eps)
"""Differences of values, as shares of the largest, that are none."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """How alike options are, all choices in one matrix; blocks, if there are no trends.

    Attributes:
        single: `(d, d)`, of effects: with the slope of ordered choices, and with trends, which couple all choices.
        pair: `(d, d)`, of the factors of products.
    """

    single: Floats
    pair: Floats

    @cached_property
    def roots(self) -> tuple[Floats, Floats]:
        """Symmetric square roots of both."""
        return _root(self.single), _root(self.pair)

    @classmethod
    def of(cls, choices: Sequence[Choice], scale: float, trend: Floats) -> Kernel:
        """Every block is centred, has mean 1 on its diagonal, and is divided by the number of choices or pairs."""
        d, start, n = sum(len(c.options) for c in choices), 0, len(choices)
        single, pair = np.zeros((d, d)), np.zeros((d, d))
        for choice in choices:
            k = len(choice.options)
            block, where = _block(choice, scale), slice(start, start + k)
            slope = _centred(np.outer(np.arange(k), np.arange(k)).astype(np.float64))
            single[where, where] = (block + slope if choice.ordered else 2 * block) / (2 * n)
            pair[where, where] = block / math.sqrt(max(1, n * (n - 1) / 2))
            start += k
        return cls(single + trend, pair)


def _root(matrix: Floats) -> Floats:
    sizes, axes = np.linalg.eigh(matrix)
    return np.asarray(axes * np.sqrt(np.maximum(sizes, 0.0)) @ axes.T)


def _block(choice: Choice, scale: float) -> Floats:
    k = len(choice.options)
    if not choice.ordered:
        return _centred(np.eye(k))
    x = np.arange(k) / max(1, k - 1)
    return _centred(np.exp(-0.5 * ((x[:, None] - x) / scale) ** 2))


def _centred(kernel: Floats) -> Floats:
    """No effect has a mean over the options."""
    kernel = kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()
    return np.asarray(kernel / max(float(np.trace(kernel)) / len(kernel), 1e-12))


def _together(trends: Floats, offsets: Sequence[int]) -> Floats:
    """The covariance of trends, `(d, d)`."""
    trends = trends / np.maximum(np.abs(trends).max(1, keepdims=True, initial=0.0), 1e-300)
    blocks = [trends[:, a:b] - trends[:, a:b].mean(1, keepdims=True) for a, b in pairwise(offsets)]
    sizes = np.sqrt(sum((b**2).mean(1) for b in blocks))
    moving = np.concatenate(blocks, 1)[sizes > 0] / sizes[sizes > 0, None]
    return np.asarray(TREND / max(1, len(moving)) * moving.T @ moving)


class Surrogate:
    """Learns values of networks one by one; equal sequences give equal bits.

    One more of `n` values costs O(n^2): the Cholesky factor of the covariance grows by a row. The settings are chosen
    anew, each in O(n^3), so seldom that this adds a constant number of such factors over all.

    Args:
        choices: Of the space.
        trends: `(m, d)`: sums of one number per option, the options of all choices one after the other, that the values
            may be proportional to. Their sizes do not matter.
    """

    def __init__(self, choices: Sequence[Choice], trends: Floats | None = None) -> None:
        sizes = [len(c.options) for c in choices]
        self.offsets = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        scales = SCALES if any(c.ordered for c in choices) else SCALES[:1]
        trend = np.zeros((self.offsets[-1],) * 2) if trends is None else _together(trends, self.offsets)
        self.kernels = [Kernel.of(choices, scale, trend) for scale in scales]
        self.at = (len(scales) // 2, 2, 4)
        """Which of `SCALES`, `PAIRS` and `RESTS`."""
        self.count, self._next, self._weighed, d = 0, 0, 0, self.offsets[-1]
        self._columns: Ints = np.zeros((16, len(sizes)), dtype=np.int64)
        self._hot, self._y, self._factor = np.zeros((16, d)), np.zeros(16), Factor()

    @property
    def kernel(self) -> Kernel:
        """The one in use."""
        return self.kernels[self.at[0]]

    @property
    def scale(self) -> float:
        """Standard deviation of the values."""
        self._weigh()
        return self._scale

    @property
    def rest(self) -> float:
        """Variance of what is left to each network, in units of `scale` squared."""
        self._weigh()
        return self._rest * self._unit

    @property
    def sound(self) -> bool:
        """Whether it can be asked: False before the first value, and when no nugget gives the covariance a factor."""
        return self._factor.count == self.count > 0

    @property
    def nugget(self) -> float:
        """What rounding has made necessary to add to the variances, as a share of their mean; 0 as a rule."""
        return self._factor.share

    @property
    def _rest(self) -> float:
        return RESTS[self.at[2]] + self._factor.nugget

    def add(self, arch: Arch, value: float) -> None:
        """One more network whose value, finite, is known: O(n^2) for `n` before."""
        n = self.count
        if n == len(self._y):  # twice the room
            self._columns, self._hot, self._y = (np.concatenate([x, x]) for x in (self._columns, self._hot, self._y))
        columns = np.array(arch, dtype=np.int64) + self.offsets[:-1]
        self._columns[n], self._hot[n], self._y[n] = columns, 0.0, value
        self._hot[n, columns] = 1.0
        sound, self.count = self.sound, n + 1
        if self.count >= self._next or (sound and not self._factor.append(self._row(columns))):
            self._standardise()
            self._choose()
            self._next = max(self.count + 1, math.ceil(self.count * GROWTH))

    def _standardise(self) -> None:
        """Failures nearly as bad as can be would hide all other differences: values are cut off below."""
        y = self._y[: self.count]
        middle, high, largest = float(np.median(y)), float(y.max()), float(np.abs(y).max())
        y = np.maximum(y, 2 * middle - high) - middle
        spread = high - middle
        if not spread > ROUNDING * largest:
            self._scale, self._z = 1.0, np.zeros(self.count)
            return
        y = y / spread
        deviation = float(y.std())
        self._scale, self._z = spread * deviation, (y - y.mean()) / deviation

    def _weigh(self) -> None:
        """Bring up to date what depends on all values; several may have come since it was last asked for."""
        if self._weighed == self.count:
            return
        self._standardise()
        self._weighed = self.count
        self._weights = self._factor.solve(self._z)
        self._unit = max(float(self._z @ self._weights) / self.count, 1e-9)

    def _row(self, columns: Ints) -> Floats:
        """Covariances of one value with all that are known, itself the last, `(count,)`."""
        known = self._columns[: self.count]
        whole = self.kernel.pair[columns].sum(0)[known].sum(1)
        found = LEVEL + self._sums[columns].sum(0)[known].sum(1) + PAIRS[self.at[1]] / 2 * (whole * whole)
        found[-1] += RESTS[self.at[2]]
        return np.asarray(found)

    def _choose(self) -> None:
        """Climb the likelihood of the three settings, the variance profiled out, and factor the covariance anew."""
        hot, n = self._hot[: self.count], self.count
        parts: dict[int, tuple[Floats, Floats]] = {}
        known: dict[tuple[int, int, int], float] = {}

        def covariance(at: tuple[int, int, int]) -> Floats:
            if at[0] not in parts:
                parts[at[0]] = _parts(self.kernels[at[0]], hot)
            single, pair = parts[at[0]]
            total = LEVEL + single + PAIRS[at[1]] * pair
            total.flat[:: n + 1] += RESTS[at[2]]
            return total

        def likelihood(at: tuple[int, int, int]) -> float:
            if at not in known:
                known[at] = self._likelihood(covariance(at))
            return known[at]

        sizes, best = (len(self.kernels), len(PAIRS), len(RESTS)), self.at
        for _ in range(4):
            better = max([best, *_adjacent(best, sizes)], key=likelihood)
            if better == best:
                break
            best = better
        self.at = best
        self._sums = self.kernel.single - PAIRS[best[1]] / 2 * self.kernel.pair**2
        self._likelihood(covariance(best))

    def _likelihood(self, covariance: Floats) -> float:
        """Of the values, with this covariance from here on; minus infinity if it has no factor."""
        try:
            self._factor.start(covariance)
        except SingularError:
            return -math.inf
        white = self._factor.whitened(self._z)
        return -self.count / 2 * math.log(float(white @ white) / self.count + 1e-12) - self._factor.logarithm

    def values(self) -> Values:
        """The posterior mean, in units of `scale` and above the mean of the values."""
        self._weigh()
        return self._weighted(self._weights)

    def draw(self, rng: np.random.Generator) -> Values:
        """A function from the posterior, without the rests: one from the prior, corrected where it is known to be off.

        Source: Matheron's rule, as in Wilson et al. (ICML 2020).
        """
        self._weigh()
        d, n, unit = self.offsets[-1], self.count, math.sqrt(self._unit)
        single, pair = self.kernel.roots
        constant = unit * math.sqrt(LEVEL) * float(rng.standard_normal())
        products = unit * math.sqrt(PAIRS[self.at[1]]) * pair @ rng.standard_normal((d, d)) @ pair
        prior = Values(constant, unit * single @ rng.standard_normal(d), products, self.offsets)
        rests = unit * math.sqrt(self._rest) * rng.standard_normal(n)
        off = self._z - prior.at(self._columns[:n] - self.offsets[:-1]) - rests
        return prior + self._weighted(self._factor.solve(off))

    def _weighted(self, weights: Floats) -> Values:
        """The sum of prior covariances with the networks known, as a function of the other network."""
        hot, kernel = self._hot[: self.count], self.kernel
        factors = hot @ kernel.pair
        pairs = PAIRS[self.at[1]] * ((factors.T * weights) @ factors)
        return Values(LEVEL * float(weights.sum()), weights @ hot @ kernel.single, pairs, self.offsets)

    def covariance(self, index: Ints) -> Floats:
        """Posterior covariance of `(m, choices)` networks, `(m, m)`, without their rests and in units of `scale`."""
        self._weigh()
        hot, single, pair = self._rows(index)
        white = self._factor.whitened(self._prior(single, pair, self._hot[: self.count]).T)
        return np.asarray(self._unit * (self._prior(single, pair, hot) - white.T @ white))

    def variance(self, index: Ints) -> Floats:
        """The diagonal of `covariance`, `(m,)`."""
        self._weigh()
        hot, single, pair = self._rows(index)
        white = self._factor.whitened(self._prior(single, pair, self._hot[: self.count]).T)
        whole = (pair * hot).sum(1)
        prior = LEVEL + (single * hot).sum(1) + PAIRS[self.at[1]] / 2 * (whole * whole)
        return np.asarray(self._unit * (prior - (white * white).sum(0)))

    def _rows(self, index: Ints) -> tuple[Floats, Floats, Floats]:
        """One-hot vectors, and what they select of the two kernels."""
        hot = np.zeros((len(index), self.offsets[-1]))
        hot[np.arange(len(index))[:, None], index + self.offsets[:-1]] = 1.0
        return hot, hot @ self._sums, hot @ self.kernel.pair

    def _prior(self, single: Floats, pair: Floats, others: Floats) -> Floats:
        """Prior covariances with others, `(m, n)`."""
        whole = pair @ others.T
        whole *= whole
        whole *= PAIRS[self.at[1]] / 2
        whole += single @ others.T
        return np.asarray(whole + LEVEL)

    def fitted(self, share: float) -> Floats:
        """Posterior means of the networks known, `(count,)`, with this share of what is left to them taken as noise."""
        self._weigh()
        return np.asarray(self._z - share * self._rest * self._weights)


def _parts(kernel: Kernel, hot: Floats) -> tuple[Floats, Floats]:
    """Covariances of the effects, and of all products of two different choices, `(n, n)` each."""
    whole = hot @ kernel.pair @ hot.T
    return hot @ kernel.single @ hot.T, (whole * whole - hot @ kernel.pair**2 @ hot.T) / 2


def _adjacent(at: tuple[int, int, int], sizes: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    found = [(at[0] + a, at[1] + b, at[2] + c) for a, b, c in _STEPS]
    return [f for f in found if all(0 <= x < size for x, size in zip(f, sizes, strict=True))]


_STEPS = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))

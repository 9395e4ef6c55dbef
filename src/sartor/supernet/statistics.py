"""What each option costs in loss, from images that took random paths: sums that are exact to resume.

The `mean` is that of Berman et al., "AOWS" (CVPR 2020), eq. 3. `least_squares` is this package's: an additive
regression of the loss on all choices at once. A mean also carries the luck of the other layers' random widths and, when
AOWS narrows the sampling, their drift; the regression takes both out. Its prior says that the loss is smooth in the
logarithm of the width and that layers are alike, and is as strong as the data ask for (restricted maximum likelihood,
Patterson and Thompson 1971): with little data, noise would otherwise choose the network.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import product
from typing import Any, Literal, TypeAlias

import torch
from sklearn.isotonic import isotonic_regression
from torch import Tensor
from torch.nn.functional import one_hot

from sartor.cholesky import factored
from sartor.core.errors import ConfigError, StateError
from sartor.core.records import Choice
from sartor.core.state import pack, unpack
from sartor.core.tables import Tables

Estimator: TypeAlias = Literal["least_squares", "mean"]

RIDGE = 1e-6
"""In images: holds the mean effect of each choice, which one-hot regressors leave open."""
SHARE = 1e-10
"""Of all images that the ridge is at least: beside ten million of them a millionth would be lost in rounding."""
WEAK = 1e-3
"""In images: the prior of `mean`, which only speaks for options that were never seen."""
EDGE = 1e-3
"""Of the largest effect: what the widest option is better by, if nothing else tells them apart."""
ROUNDING = 1e-14
"""Eigenvalues of a prior that are so small a share of the largest are none."""
WEIGHTS = tuple(10.0**power for power in range(-2, 7))
"""In images: what `tune` chooses from."""


class Statistics:
    """Sufficient statistics of `d ~ sum_i effect_i(path_i)` over images, with forgetting.

    Args:
        choices: The choices of the space.
        half_life: Epochs after which an image counts half.
    """

    saved = ("gram", "moment", "square", "weights")

    def __init__(self, choices: Sequence[Choice], *, half_life: float) -> None:
        if half_life <= 0:
            raise ConfigError(f"half_life is {half_life}; it must be positive")
        self.sizes = [len(c.options) for c in choices]
        self._ordered = [c.ordered for c in choices]
        self.half_life = half_life
        self.gram = torch.zeros(sum(self.sizes), sum(self.sizes), dtype=torch.float64)
        self.moment = torch.zeros(sum(self.sizes), dtype=torch.float64)
        self.square = 0.0
        self.weights = (100.0, 100.0)
        """Of the prior, in images: roughness along a choice, difference of slope between choices."""
        self._roughness, self._spread = _roughness(choices), _spread(choices)
        means = [torch.full((k, k), 1 / k**2, dtype=torch.float64) for k in self.sizes]
        self._rank = int(torch.linalg.matrix_rank(self._roughness + self._spread, hermitian=True))
        self._means = torch.block_diag(*means)  # type: ignore[no-untyped-call]

    def forget(self) -> None:
        """Let one epoch pass."""
        factor = 0.5 ** (1 / self.half_life)
        self.gram *= factor
        self.moment *= factor
        self.square *= factor

    def add(self, paths: Tensor, differences: Tensor) -> None:
        """Take in a batch: options `(batch, n)`, long, and loss differences to the widest network, `(batch,)`."""
        hot = torch.cat([one_hot(p, k) for p, k in zip(paths.T, self.sizes, strict=True)], 1).double()
        d = differences.double()
        self.gram += hot.T @ hot
        self.moment += hot.T @ d
        self.square += float(d @ d)

    def mass(self) -> list[Tensor]:
        """How many images (after forgetting) each option was seen with, `(k_i,)` each."""
        return list(torch.split(self.gram.diagonal(), self.sizes))

    def tables(self, estimator: Estimator) -> Tables:
        """Loss that each option adds, divided by the number of choices (AOWS, eq. 3); lower is better.

        Raises:
            StateError: Nothing was added yet.
        """
        if not self.gram.any():
            raise StateError("there are no statistics before the first epoch; train for one before solving")
        if estimator == "mean":
            normal = torch.diag(self.gram.diagonal()) + self._prior((WEAK, WEAK))
        else:
            normal = self.gram + self._prior(self.weights)
        effects = torch.cholesky_solve(self.moment[:, None], factored(normal + self._ridge())[0])[:, 0]
        return Tables(torch.split(effects / len(self.sizes), self.sizes))

    def losses(self, estimator: Estimator) -> Tables:
        """What a solver should minimise: `tables`, and for `least_squares` never less loss for a narrower layer.

        In a supernet that is trained too little, noise says that narrow layers are better, and a solver that believes
        it leaves the budget unused. So the effects of an ordered choice are replaced by the nearest ones that fall with
        the width (isotonic regression), and of equal ones the wider is better by a hair.
        """
        tables = self.tables(estimator)
        if estimator == "mean":
            return tables
        spread = max(float(u.max() - u.min()) for u in tables.unary)
        falling = [
            _falling(u, mass, EDGE * spread) if ordered else u
            for u, mass, ordered in zip(tables.unary, self.mass(), self._ordered, strict=True)
        ]
        return Tables(tuple(falling))

    def tune(self) -> None:
        """Choose the weights of the prior of `least_squares` that make the data most likely."""
        if self.gram.any():
            self.weights = min(product(WEIGHTS, WEIGHTS), key=self._unlikeliness)

    def state_dict(self) -> dict[str, Any]:
        """The sums."""
        return pack(self, self.saved)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` took."""
        unpack(self, self.saved, state)

    def _prior(self, weights: tuple[float, float]) -> Tensor:
        return weights[0] * self._roughness + weights[1] * self._spread

    def _ridge(self) -> Tensor:
        ridge: Tensor = self._means * max(RIDGE, SHARE * float(self.gram.diagonal().sum()) / len(self.sizes))
        return ridge

    def _unlikeliness(self, weights: tuple[float, float]) -> float:
        """-2 log of the restricted likelihood, up to a constant; the variance of the noise is profiled out."""
        prior = self._prior(weights)
        informed = torch.linalg.eigvalsh(prior)[-self._rank :]
        informed = informed.clamp_min(ROUNDING * float(informed.max())) if self._rank else informed
        lower, _ = factored(self.gram + prior + self._ridge())
        effects = torch.cholesky_solve(self.moment[:, None], lower)[:, 0]
        freedom = max(1.0, float(self.gram.diagonal()[: self.sizes[0]].sum()) - (len(prior) - self._rank))
        left = max(self.square - float(self.moment @ effects), 1e-12 * self.square, sys.float_info.min)
        variance = left / freedom
        return float(2 * lower.diagonal().log().sum() - informed.log().sum()) + freedom * math.log(variance)


def _falling(effects: Tensor, mass: Tensor, edge: float) -> Tensor:
    """The nearest effects that do not rise, plus `edge` in all for the narrowest option."""
    weights = (mass + RIDGE).numpy()
    nearest = isotonic_regression(effects.numpy(), sample_weight=weights, increasing=False)
    return torch.from_numpy(nearest.copy()) - edge * torch.linspace(0, 1, len(effects), dtype=torch.float64)


def _positions(choice: Choice) -> Tensor:
    """Where the options lie on [0, 1], `(k,)`: by the logarithm of a width, or evenly."""
    values = [o for o in choice.options if isinstance(o, int | float) and not isinstance(o, bool) and o > 0]
    if len(values) < len(choice.options):
        return torch.linspace(0, 1, len(choice.options), dtype=torch.float64)
    place = torch.tensor(values, dtype=torch.float64).log()
    return (place - place[0]) / (place[-1] - place[0]) if len(values) > 1 else place * 0


def _roughness(choices: Sequence[Choice]) -> Tensor:
    """Quadratic form `(K, K)`: integrated squared curvature; squared distance from the mean where there is no order."""
    blocks = []
    for choice in choices:
        k = len(choice.options)
        eye = torch.eye(k, dtype=torch.float64)
        if not choice.ordered:
            blocks.append(eye - 1 / k)
            continue
        t = _positions(choice)
        slopes = (eye[1:] - eye[:-1]) / (t[1:] - t[:-1])[:, None]
        span = (t[2:] - t[:-2])[:, None] / 2
        bends = (slopes[1:] - slopes[:-1]) / span * span.sqrt()
        block = bends.T @ bends
        blocks.append(block / block.diagonal().mean() if k > 2 else block)
    return torch.block_diag(*blocks)  # type: ignore[no-any-return, no-untyped-call]


def _spread(choices: Sequence[Choice]) -> Tensor:
    """Quadratic form `(K, K)`: squared differences between the slopes of ordered choices and their mean."""
    rows, start, total = [], 0, sum(len(c.options) for c in choices)
    for choice in choices:
        t = _positions(choice)
        if choice.ordered and len(t) > 1:
            row = torch.zeros(total, dtype=torch.float64)
            centred = t - t.mean()
            row[start : start + len(t)] = centred / (centred @ centred)
            rows.append(row)
        start += len(t)
    if not rows:
        return torch.zeros(total, total, dtype=torch.float64)
    slopes = torch.stack(rows)
    centred_slopes = slopes - slopes.mean(0)
    return centred_slopes.T @ centred_slopes

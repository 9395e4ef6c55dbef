"""Latency models: sums over layers or operators with non-negative entries, chosen and tuned by cross-validation.

Sources: `table` is Eq. 7 of Berman et al., "AOWS: Adaptive and optimal network width search with latency
constraints", CVPR 2020. Deviations: residuals are relative (the noise is multiplicative); a network has a constant
overhead; entries that no sample contains keep the value of `physical` instead of an arbitrary one; the slack variables
are eliminated, `min |Mx - y|^2 + K |max(Dx, 0)|^2, x >= 0`, and solved by L-BFGS-B.
`physical` and `combined` are this package's own: non-negative least squares on per-layer terms, and a Gaussian process
over the entries whose mean those terms are (generalised least squares, then kriging).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from sartor.cholesky import Factor
from sartor.core.errors import ConfigError, DataError
from sartor.core.records import Arch
from sartor.core.rng import numpy_rng
from sartor.latency.design import BLOCK, Entries, Floats

Kind: TypeAlias = Literal["macs", "table", "physical", "combined"]
Settings: TypeAlias = Mapping[str, float]

KINDS: tuple[Kind, ...] = ("macs", "table", "physical", "combined")
"""By rising precision in our measurements; `auto` takes the last of those that tie."""

GRIDS: Mapping[Kind, tuple[Settings, ...]] = MappingProxyType(
    {
        "macs": ({},),
        "physical": tuple({"block": block} for block in (16, 8, 32, 1)),
        "table": tuple({"monotone": 10.0**power} for power in range(6, -1, -1)),
        "combined": tuple(
            {"block": block, "spread": spread, "length": length}
            for spread, length, block in product((0.05, 0.1, 0.2, 0.4), (1.5, 0.7), (16, 8))
        ),
    }
)
"""The settings that cross-validation chooses from, the stiffest first."""

TIE = 0.05
"""Cross-validation errors that differ by less than this fraction are a tie: folds are few and measurements noisy."""

OUTLIER = 2.5
"""Robust standard deviations from the prediction beyond which a sample counts less."""
LEAST = 0.1
"""The corrections of `combined` leave at least this fraction of the physical terms."""


@dataclass(frozen=True)
class Samples:
    """Measured networks, ready to be fitted: `n` rows.

    Attributes:
        counts: How often each network has each table entry, `(n, keys)`.
        y: Milliseconds, `(n,)`.
        noise: Relative standard deviation of each measurement, `(n,)`.
    """

    counts: sparse.csr_array
    y: Floats
    noise: Floats

    @classmethod
    def of(cls, design: Entries, archs: Sequence[Arch], y: Sequence[float], noise: Sequence[float]) -> Samples:
        """The samples of some archs."""
        return cls(design.matrix(archs), np.array(y, dtype=np.float64), np.array(noise, dtype=np.float64))

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, pick: NDArray[np.int64]) -> Samples:
        """Some of them."""
        return Samples(self.counts[pick], self.y[pick], self.noise[pick])

    @property
    def sigma(self) -> Floats:
        """Standard deviation of each measurement in milliseconds, `(n,)`."""
        return self.noise * self.y


@dataclass(frozen=True)
class Model:
    """A fitted latency model.

    Attributes:
        kind: Which.
        values: Milliseconds of each table entry, `(keys,)`, non-negative.
        constant: Milliseconds of every network.
        settings: What cross-validation chose.
        cv_error: NRMSE of the folds that were left out, outliers counting less; NaN if it was not cross-validated.
    """

    kind: Kind
    values: Floats
    constant: float
    settings: Settings = field(default_factory=dict)
    cv_error: float = float("nan")

    def predict(self, counts: sparse.csr_array) -> Floats:
        """Milliseconds of networks given by their counts, `(n, keys)` -> `(n,)`."""
        return np.asarray(counts @ self.values + self.constant)


def nrmse(predicted: Floats, measured: Floats, weights: Floats | None = None) -> float:
    """Root of the (weighted) mean squared error over the mean measurement."""
    return float(
        np.sqrt(np.average((predicted - measured) ** 2, weights=weights)) / np.average(measured, weights=weights)
    )


def mape(predicted: Floats, measured: Floats) -> float:
    """Mean absolute relative error."""
    return float(np.mean(np.abs(predicted / measured - 1)))


def fit(design: Entries, samples: Samples, kind: Kind | Literal["auto"] = "auto", *, folds: int = 5) -> Model:
    """The model of `kind`, its settings chosen by `folds`-fold cross-validation; `auto` chooses the kind as well.

    Among settings whose errors tie (see `TIE`) the stiffest is taken, among kinds the most detailed.

    Raises:
        DataError: There are fewer samples than folds.
    """
    if kind == "auto":
        found = [fit(design, samples, k, folds=folds) for k in reversed(KINDS)]
        return found[_first_of_the_best([model.cv_error for model in found])]
    if kind not in KINDS:
        raise ConfigError(f"kind of a latency model must be auto or one of {', '.join(KINDS)}; got {kind!r}")
    if len(samples) < folds:
        raise DataError(f"{len(samples)} measured networks are too few for {folds} folds; measure more networks")
    trusted = without_outliers(design, samples, folds)
    trust = (samples.noise / trusted.noise) ** 2
    errors = [nrmse(_left_out(design, trusted, kind, s, folds), samples.y, trust) for s in GRIDS[kind]]
    best = _first_of_the_best(errors)
    return replace(fit_with(design, trusted, kind, GRIDS[kind][best]), cv_error=errors[best])


def fit_with(design: Entries, samples: Samples, kind: Kind, settings: Settings) -> Model:
    """The model of `kind` with given settings."""
    return _FITTERS[kind](design, samples, settings)


def without_outliers(design: Entries, samples: Samples, folds: int = 5) -> Samples:
    """The samples, with more noise ascribed to those far from what `physical` predicts from the others (Huber 1964)."""
    trusted = samples
    for _ in range(3):
        relative = samples.y / _left_out(design, trusted, "physical", {"block": BLOCK}, folds) - 1
        relative -= np.median(relative)
        scale = OUTLIER * 1.4826 * float(np.median(np.abs(relative)))
        trusted = replace(samples, noise=samples.noise * np.maximum(1.0, np.abs(relative) / max(scale, 1e-12)))
    return trusted


def violations(design: Entries, values: Floats) -> float:
    """Sum of all decreases of latency between neighbouring entries, the larger one being faster, in ms."""
    return float(np.maximum(design.neighbours @ values, 0.0).sum())


def _first_of_the_best(errors: Sequence[float]) -> int:
    return next(i for i, error in enumerate(errors) if error <= (1 + TIE) * min(errors))


def _left_out(design: Entries, samples: Samples, kind: Kind, settings: Settings, folds: int) -> Floats:
    """Each sample predicted from the other folds, `(n,)`."""
    order = numpy_rng(0, "latency", "folds").permutation(len(samples))
    predicted = np.empty(len(samples))
    for fold in range(folds):
        left_out = np.sort(order[fold::folds])
        kept = np.setdiff1d(order, left_out)
        predicted[left_out] = fit_with(design, samples.rows(kept), kind, settings).predict(samples.counts[left_out])
    return predicted


def _linear(samples: Samples, per_key: Floats) -> tuple[Floats, float]:
    """Non-negative factors of the columns of `per_key`, `(keys, terms)`, and a constant, by relative least squares."""
    columns = np.column_stack([samples.counts @ per_key, np.ones(len(samples))])
    scale = np.maximum(columns.max(axis=0), 1e-300)
    factors = _nonnegative(columns / scale / samples.sigma[:, None], 1 / samples.noise) / scale
    return np.asarray(per_key @ factors[:-1]), float(factors[-1])


def _nonnegative(a: Floats, b: Floats) -> Floats:
    """The `x >= 0` with the least `|Ax - b|`, `(terms,)`: exactly or, where columns are too alike for that, nearly.

    Active sets may go round in a circle between columns that differ by rounding only; bounded least squares does not.
    """
    try:
        return np.asarray(optimize.nnls(a, b)[0])
    except RuntimeError:
        return np.asarray(optimize.lsq_linear(a, b, bounds=(0.0, np.inf), method="trf", tol=1e-12).x)


def _macs(design: Entries, samples: Samples, settings: Settings) -> Model:
    return Model("macs", *_linear(samples, design.macs()[:, None]), settings)


def _physical(design: Entries, samples: Samples, settings: Settings) -> Model:
    block = int(settings["block"])
    return Model("physical", *_linear(samples, design.physical(block)), settings)


def _table(design: Entries, samples: Samples, settings: Settings) -> Model:
    start = _physical(design, samples, {"block": BLOCK})
    scale = _scale(start)
    M = sparse.csr_array(samples.counts @ sparse.diags_array(scale) * (1 / samples.sigma)[:, None])
    D = sparse.csr_array(design.neighbours @ sparse.diags_array(scale / _typical(start)))
    y = (samples.y - start.constant) / samples.sigma
    weight = settings["monotone"] * len(samples) / max(D.shape[0], 1)

    def loss(z: Floats) -> tuple[float, Floats]:
        residual, decrease = M @ z - y, np.maximum(D @ z, 0.0)
        gradient = 2 * (M.T @ residual) + 2 * weight * (D.T @ decrease)
        return float(residual @ residual + weight * (decrease @ decrease)), np.asarray(gradient)

    bounds = optimize.Bounds(0, np.inf)
    found = optimize.minimize(
        loss, start.values / scale, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200, "maxcor": 20}
    )
    values = np.where(_seen(samples), found.x * scale, start.values)
    return Model("table", np.asarray(values), start.constant, settings)


def _combined(design: Entries, samples: Samples, settings: Settings) -> Model:
    block, start = int(settings["block"]), _physical(design, samples, settings)
    scale, terms = _scale(start) * settings["spread"], design.physical(block)
    scaled = samples.counts @ sparse.diags_array(scale)
    shared = scaled @ design.correlation(settings["length"], block)
    covariance = np.asarray((scaled @ shared.T).T) + np.diag(samples.sigma**2)
    factor = Factor()
    factor.start(covariance)  # networks measured again and again, without noise, get a nugget
    # generalised least squares: the physical terms again, now with the covariance of what they leave unexplained
    columns = np.column_stack([samples.counts @ terms, np.ones(len(samples))])
    size = np.maximum(columns.max(axis=0), 1e-300)
    whitened = factor.whitened(np.column_stack([columns / size, samples.y]))
    factors = _nonnegative(whitened[:, :-1], whitened[:, -1]) / size
    residual = samples.y - columns @ factors
    mean = terms @ factors[:-1]
    delta = scale * (shared.T @ factor.solve(residual))
    return Model("combined", np.maximum(mean + delta, LEAST * mean), float(factors[-1]), settings)


def _scale(model: Model) -> Floats:
    """Magnitude of each entry, bounded away from zero."""
    return np.asarray(model.values + 0.05 * _typical(model))


def _typical(model: Model) -> float:
    """Mean of the entries; where the constant explains all latencies, next to nothing beside it."""
    return max(float(model.values.mean()), 1e-12 * model.constant, 1e-300)


def _seen(samples: Samples) -> NDArray[np.bool_]:
    return np.asarray(samples.counts.sum(axis=0) > 0)


_FITTERS: Mapping[Kind, Callable[[Entries, Samples, Settings], Model]] = MappingProxyType(
    {"macs": _macs, "table": _table, "physical": _physical, "combined": _combined}
)

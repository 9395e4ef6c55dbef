"""Viterbi minimum, exact marginals and Lagrangian decoding over tables whose couplings form a chain (or nearly).

Source: Berman et al., "AOWS: Adaptive and optimal network width search with latency constraints", CVPR 2020.
Deviations: any coupling graph of small path-width is solved exactly, not only a chain; the multiplier is found by
walking the convex hull (Handler and Zang 1980), which ends at the exact multiplier that the paper's bracketing and
bisection approach, needs no start value and fewer decodings.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sartor.core.errors import BudgetError, ConfigError
from sartor.core.records import Arch
from sartor.core.tables import Tables
from sartor.solvers.constrained import optimum
from sartor.solvers.frontier import Floats
from sartor.solvers.relaxation import Model, dual
from sartor.solvers.solution import Solution


def minimum(tables: Tables) -> tuple[Arch, float]:
    """The arch with the least value, and that value (equal to `tables.cost(arch)`).

    Raises:
        BudgetError: Every arch is forbidden.
    """
    _, point = Model.of(tables).relaxed(np.zeros(0))
    return point.arch, point.loss


def marginals(tables: Tables, temperature: float = 1.0) -> list[Tensor]:
    """Exact marginals of `p(arch) ~ exp(-tables(arch) / temperature)`: one `(k_i,)` float64 tensor per choice.

    Sums are taken in units of energy around their minimum, so that they hold for any positive temperature.

    Raises:
        BudgetError: Every arch is forbidden.
        ConfigError: The temperature is not positive.
    """
    if not temperature > 0:
        raise ConfigError(f"the temperature of marginals must be positive, got {temperature}; use minimum() for zero")
    model = Model.of(tables)
    steps, local = model.steps.steps, model.steps.split(model.loss_flat)
    free: list[Floats] = [np.zeros(1)]
    for step, values in zip(reversed(steps), reversed(local), strict=True):
        free.append(_soft_minimum(values + free[-1][step.target], temperature))
    free.reverse()
    if free[0][0] == np.inf:
        raise BudgetError("every arch is forbidden by an infinite entry; loosen the limits")
    past, result = np.zeros(1), [torch.empty(0)] * len(steps)
    for step, values, after in zip(steps, local, free[1:], strict=True):
        joint = past[:, None] + values
        result[step.choice] = _gibbs((joint + after[step.target]).T, temperature)
        past = _soft_minimum(joint.reshape(-1)[step.source], temperature)
    return result


def lagrangian(loss: Tables, cost: Tables, limit: float) -> Solution:
    """The best arch on the lower convex hull of (cost, loss) with `cost <= limit`: OWS decoding.

    `multiplier` is the slope of the hull at the limit (0 if the limit does not bind): the gamma of AOWS.

    Raises:
        BudgetError: No arch meets the limit.
    """
    model = Model.of(loss, [(cost, limit)])
    found = dual(model)
    if found.best is None:
        return optimum(loss, [(cost, limit)])  # the limit lies within rounding of the smallest cost
    optimal = found.best.loss - found.bound <= model.noise(found.multipliers)
    bound = found.best.loss if optimal else found.bound
    multiplier = float(found.multipliers[0])
    return Solution(found.best.arch, found.best.loss, found.best.costs, bound, optimal, multiplier, found.decoded)


def _soft_minimum(values: Floats, temperature: float) -> Floats:
    """`-T log sum exp(-values / T)` over the last axis: `(n, r) -> (n,)`."""
    least = values.min(axis=1)
    finite = np.where(np.isinf(least), 0.0, least)
    total = _weights(values - finite[:, None], temperature).sum(axis=1)
    return np.asarray(least - temperature * np.log(np.where(np.isinf(least), 1.0, total)))


def _gibbs(values: Floats, temperature: float) -> Tensor:
    """Normalised `sum_r exp(-values / T)`: `(k, r) -> (k,)`."""
    weights = _weights(values - values.min(), temperature).sum(axis=1)
    return torch.from_numpy(weights / weights.sum())


def _weights(excess: Floats, temperature: float) -> Floats:
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(np.exp(-(excess / temperature)))

"""The Lagrangian relaxation of a constrained minimum over tables, and its best multipliers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.optimize import linprog
from torch import Tensor

from sartor.core.errors import BudgetError, CapabilityError, ConfigError, DivergedError
from sartor.core.records import Arch
from sartor.core.tables import Tables
from sartor.solvers.frontier import Edge, Floats, Plan, completions, decode, plan

Bound: TypeAlias = tuple[Tables, float]
"""Tables and the largest value an arch may have."""
MAX_CUTS = 200


@dataclass(frozen=True, eq=False)
class Terms:
    """`Tables` as NumPy arrays.

    Attributes:
        rounding: How far two orders of adding the entries of one arch can lie apart, at most.
        ceiling: No arch without infinite entries has a larger value; -inf if there is none.
    """

    unary: tuple[Floats, ...]
    pairwise: Mapping[Edge, Floats]
    constant: float
    rounding: float
    ceiling: float

    @classmethod
    def of(cls, tables: Tables) -> Terms:
        """Copies nothing that is float64 already."""
        unary = tuple(_array(u) for u in tables.unary)
        return cls.build(unary, {e: _array(t) for e, t in tables.pairwise.items()}, float(tables.constant))

    @classmethod
    def build(cls, unary: tuple[Floats, ...], pairwise: Mapping[Edge, Floats], constant: float) -> Terms:
        """Check the entries and find their range."""
        arrays = [np.array([constant]), *unary, *pairwise.values()]
        flat = np.concatenate([a.reshape(-1) for a in arrays])
        if np.isnan(flat).any() or (flat == -np.inf).any():
            raise DivergedError("solvers take finite entries or +inf (forbidden), a table holds NaN or -inf; mend it")
        starts = np.cumsum([0, *(a.size for a in arrays[:-1])])
        barred = np.isposinf(flat)
        largest = float(np.maximum.reduceat(np.where(barred, 0.0, np.abs(flat)), starts).sum())
        ceiling = float(np.maximum.reduceat(np.where(barred, -np.inf, flat), starts).sum())
        return cls(unary, pairwise, constant, (len(arrays) + 2) * float(np.finfo(np.float64).eps) * largest, ceiling)

    def __call__(self, arch: Sequence[int]) -> float:
        """The same float64 number as `Tables.cost`: the same additions in the same order."""
        total = self.constant
        for table, a in zip(self.unary, arch, strict=True):
            total += float(table[a])
        for (i, j), table in self.pairwise.items():
            total += float(table[arch[i], arch[j]])
        return total


def _array(tensor: Tensor) -> Floats:
    return np.asarray(tensor.detach().cpu().double().numpy())


@dataclass(frozen=True, eq=False)
class Model:
    """A loss, several upper bounds and forbidden entries, laid out for the dynamic programme.

    Attributes:
        loss: The loss.
        costs: The constraints' tables.
        limits: `(m,)`, finite.
        slack: `(m,)`, what the order of addition may change in each cost; bounds hold for limits so much looser.
        steps: Path decomposition of all tables together.
        loss_flat: `(total,)` local losses, +inf where any table forbids.
        cost_flat: `(m, total)` local costs, finite.
        forbidden: `(total,)`, 0 or +inf.
    """

    loss: Terms
    costs: tuple[Terms, ...]
    limits: Floats
    slack: Floats
    steps: Plan
    loss_flat: Floats
    cost_flat: Floats
    forbidden: Floats

    @classmethod
    def of(cls, loss: Tables, constraints: Sequence[Bound] = (), peaks: Sequence[Bound] = ()) -> Model:
        """Peaks become forbidden entries; a limit of +inf binds nothing."""
        main, costs = Terms.of(loss), tuple(Terms.of(t) for t, _ in constraints)
        bans = [_ban(Terms.of(t), float(limit)) for t, limit in peaks]
        edges = frozenset(e for t in (main, *costs, *bans) for e in t.pairwise)
        steps = plan(tuple(len(u) for u in main.unary), edges)
        flats = [steps.flatten(t.unary, t.pairwise.items()) for t in (main, *costs, *bans)]
        forbidden = np.where(np.isinf(flats).any(axis=0), np.inf, 0.0)
        cost_flat = np.array([np.where(np.isinf(forbidden), 0.0, f) for f in flats[1 : 1 + len(costs)]])
        limits = np.array([min(float(limit), _roof(c)) for c, (_, limit) in zip(costs, constraints, strict=True)])
        given = [float(limit) for _, limit in (*constraints, *peaks)]
        if np.isnan(given).any():
            raise ConfigError(f"limits are numbers, got {given}; mend the limit")
        slack, shape = np.array([c.rounding for c in costs]), (len(costs), len(forbidden))
        return cls(main, costs, limits, slack, steps, flats[0] + forbidden, cost_flat.reshape(shape), forbidden)

    @property
    def room(self) -> Floats:
        """`(m,)` what the choices may cost, rounding included."""
        return np.asarray(self.limits + self.slack - np.array([c.constant for c in self.costs]))

    def weighed(self, multipliers: Floats) -> Floats:
        """Local values of `loss + multipliers @ costs`."""
        return np.asarray(self.loss_flat + multipliers @ self.cost_flat)

    def feasible(self, costs: Sequence[float]) -> bool:
        """Every cost within its limit, by the number that `Tables.cost` gives."""
        return all(c <= limit for c, limit in zip(costs, self.limits, strict=True))

    def noise(self, multipliers: Floats) -> float:
        """A relaxation this near to a loss has reached it: what rounding may hide."""
        return 2 * self.loss.rounding + 2 * float(multipliers @ self.slack)

    def point(self, arch: Arch) -> Point:
        """The arch with its exact loss and costs."""
        return Point(arch, self.loss(arch), tuple(c(arch) for c in self.costs))

    def relaxed(self, multipliers: Floats) -> tuple[float, Point]:
        """Value of the relaxation, a lower bound of every feasible loss, and the arch that reaches it.

        Raises:
            BudgetError: Every arch is forbidden.
        """
        flat = self.weighed(multipliers)
        best = completions(self.steps, flat)
        if best[0][0] == np.inf:
            raise BudgetError("every arch is forbidden by an infinite entry or a peak limit; loosen the limits")
        offset = self.loss.constant - float(multipliers @ self.room)
        return float(best[0][0]) + offset, self.point(decode(self.steps, flat, best))

    def impossible(self) -> str:
        """Message of the error that no arch meets the limits."""
        least = ", ".join(f"{self.cheapest(k).costs[k]:.17g}" for k in range(len(self.costs)))
        limits = ", ".join(f"{limit:.17g}" for limit in self.limits)
        return (
            f"no arch has costs within the limits ({limits}); the smallest reachable (each alone) are ({least}); "
            "loosen the limits"
        )

    def cheapest(self, k: int) -> Point:
        """The arch with the smallest `k`-th cost."""
        flat = self.cost_flat[k] + self.forbidden
        return self.point(decode(self.steps, flat, completions(self.steps, flat)))


@dataclass(frozen=True)
class Point:
    """An arch with its loss and costs."""

    arch: Arch
    loss: float
    costs: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Dual:
    """The best relaxation found.

    Attributes:
        bound: Lower bound of every feasible loss.
        multipliers: `(m,)`.
        best: The feasible point with the least loss, None if none was met.
        decoded: Number of relaxations solved.
    """

    bound: float
    multipliers: Floats
    best: Point | None
    decoded: int


def _ban(terms: Terms, limit: float) -> Terms:
    """Zero tables with +inf where one value of at most two choices exceeds `limit`."""
    live = sorted({i for i, u in enumerate(terms.unary) if u.any()} | {i for e in terms.pairwise for i in e})
    if len(live) > 2:
        raise CapabilityError(
            f"a peak's tables are one value of at most two choices, these depend on choices {live}; "
            "give one Tables per layer"
        )
    zeros = tuple(np.zeros_like(u) for u in terms.unary)
    i, j = (live + [c for c in range(len(zeros)) if c not in live])[:2] if len(zeros) > 1 else (0, 0)
    if i == j or len(live) < 2:
        value = terms.constant + terms.unary[i]
        return Terms.build((*zeros[:i], _barred(value, limit), *zeros[i + 1 :]), {}, 0.0)
    value = terms.constant + terms.unary[i][:, None] + terms.unary[j] + terms.pairwise.get((i, j), 0.0)
    return Terms.build(zeros, {(i, j): _barred(value, limit)}, 0.0)


def _barred(value: Floats, limit: float) -> Floats:
    return np.where((value > limit) | np.isinf(value), np.inf, 0.0)


def dual(model: Model) -> Dual:
    """Maximise the relaxation over the multipliers.

    Raises:
        BudgetError: No arch meets the limits (proved by one cost alone, or by the relaxation).
    """
    bound, free = model.relaxed(np.zeros(len(model.costs)))
    if model.feasible(free.costs):
        return Dual(bound, np.zeros(len(model.costs)), free, 1)
    cheapest = [model.cheapest(k) for k in range(len(model.costs))]
    if any(p.costs[k] > model.limits[k] + model.slack[k] for k, p in enumerate(cheapest)):
        raise BudgetError(model.impossible())
    return _walk(model, free, cheapest[0]) if len(model.costs) == 1 else _cut(model, [free, *cheapest])


def _walk(model: Model, over: Point, under: Point) -> Dual:
    """One constraint: walk the hull to the edge that crosses the limit (Handler and Zang, Networks 10, 1980)."""
    decoded = 2
    while True:
        rise, fall = over.costs[0] - under.costs[0], max(under.loss - over.loss, 0.0)
        multiplier = np.array([fall / rise if rise > 0 else 0.0])
        bound, point = model.relaxed(multiplier)
        decoded += 1
        line = over.loss + multiplier[0] * (over.costs[0] - model.limits[0])
        if bound >= line - model.noise(multiplier) or point in (over, under):
            return Dual(bound, multiplier, under if model.feasible(under.costs) else None, decoded)
        if model.feasible(point.costs):
            under = point
        else:
            over = point


def _cut(model: Model, points: list[Point]) -> Dual:
    """Several constraints: Kelley's cutting planes (1960), one linear programme per relaxation."""
    losses, ceiling = [p.loss for p in points], model.loss.ceiling
    spread = max(losses) - min(losses) + model.loss.rounding
    box = 10 * spread / _spans(model, points)
    last, best_bound, best_at = box * 1e12, -np.inf, np.zeros(len(box))
    tolerance = max(1e-7 * spread, model.loss.rounding)
    for _ in range(MAX_CUTS):
        value, at = _master(model, points, box)
        bound, point = model.relaxed(at)
        points.append(point)
        if bound > best_bound:
            best_bound, best_at = bound, at
        if best_bound > ceiling + model.loss.rounding:
            raise BudgetError(model.impossible())
        if value - best_bound <= tolerance:
            if (at < 0.999 * box).all() or (box >= last).any():
                break
            box = box * 10
    feasible = [p for p in points if model.feasible(p.costs)]
    return Dual(best_bound, best_at, min(feasible, key=lambda p: p.loss, default=None), len(points))


def _spans(model: Model, points: Sequence[Point]) -> Floats:
    """`(m,)` largest distance to each limit; at least the rounding, below which a cost is constant."""
    excess = np.abs(np.array([p.costs for p in points]) - model.limits).max(axis=0)
    return np.asarray(np.maximum(excess, model.slack + np.finfo(np.float64).tiny))


def _master(model: Model, points: Sequence[Point], box: Floats) -> tuple[float, Floats]:
    """Highest point under all cuts: `max z` with `z <= loss_p + multipliers @ (costs_p - limits)`."""
    slopes = np.array([p.costs for p in points]) - model.limits
    scale = _spans(model, points)
    losses = np.array([p.loss for p in points])
    base, unit = losses.min(), max(float(np.ptp(losses)), 1e-300)
    rows = np.hstack([np.ones((len(points), 1)), -slopes / scale])
    found = linprog(
        np.r_[-1.0, np.zeros(len(box))],
        A_ub=rows,
        b_ub=(losses - base) / unit,
        bounds=[(None, None), *((0.0, b) for b in box * scale / unit)],
        method="highs",
    )
    return float(found.x[0]) * unit + base, found.x[1:] / scale * unit


def _roof(terms: Terms) -> float:
    """A finite limit that no arch exceeds, to stand for +inf."""
    return (terms.ceiling if np.isfinite(terms.ceiling) else 0.0) + 1.0 + terms.rounding

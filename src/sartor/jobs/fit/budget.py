"""Budgets: what a user writes, and the absolute limits it means."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sartor.core.errors import BudgetError, ConfigError
from sartor.core.records import Constraint

METRICS = ("latency_ms", "macs", "params", "memory_bytes")

MOST = 0.1
"""The share of a latency budget that is kept back for the error of the latency model, at most."""

Limit = float | str


@dataclass(frozen=True)
class Budget:
    """Upper bounds as the user wrote them: numbers, or per cent of the reference network.

    Attributes:
        limits: Metric -> one bound, or several for at most one metric (a curve of networks).
    """

    limits: Mapping[str, tuple[Limit, ...]]

    @classmethod
    def of(cls, table: Mapping[str, Limit | Sequence[Limit]]) -> Budget:
        """Check a `[budget]` table.

        Raises:
            ConfigError: It is empty, names an unknown metric, or holds what is not a bound.
        """
        limits = {}
        for metric, value in table.items():
            if metric not in METRICS:
                near = difflib.get_close_matches(metric, METRICS, n=1)
                raise ConfigError(f"no budget on {metric!r}; " + (f"did you mean {near[0]!r}?" if near else _KNOWN))
            several = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
            limits[metric] = tuple(_checked(metric, v) for v in several)
        if not limits or not all(limits.values()):
            raise ConfigError(f"the budget is empty; set one of {', '.join(METRICS)}, as in latency_ms = '50%'")
        if sum(len(v) > 1 for v in limits.values()) > 1:
            raise ConfigError("several bounds are allowed for one metric only; give the others one number")
        return cls(limits)

    @property
    def measured(self) -> bool:
        """Whether latency is bounded, so that the target has to be measured to decide."""
        return "latency_ms" in self.limits

    def points(self, reference: Mapping[str, float]) -> list[dict[str, float]]:
        """The absolute limits, one mapping per network to find, in the order the user gave them."""
        count = max(len(v) for v in self.limits.values())
        absolute = {m: [_absolute(v, reference[m]) for v in values] for m, values in self.limits.items()}
        return [{m: v[i if len(v) > 1 else 0] for m, v in absolute.items()} for i in range(count)]


def constraints(points: Sequence[Mapping[str, float]]) -> tuple[Constraint, ...]:
    """What one search has to know to serve all of `points`."""
    result = []
    for metric in points[0]:
        levels = sorted({p[metric] for p in points}, reverse=True)
        result.append(Constraint(metric, levels[0], tuple(levels[1:])))
    return tuple(result)


def aimed(points: Sequence[Mapping[str, float]], error: float, *, least: float) -> list[dict[str, float]]:
    """What a search should aim at, so that what it finds is inside the budget when it is measured.

    The best networks under a modelled limit are, of all that are about as good, those that the model underrates: by
    about its error.

    Args:
        points: The limits, metric -> bound, with `latency_ms`.
        error: Of the latency model, relative (NRMSE); `MOST` is kept back at most.
        least: Modelled milliseconds of the smallest network, below which nothing can be aimed at.
    """
    found = []
    for point in points:
        limit = point["latency_ms"]
        found.append({**point, "latency_ms": min(limit, max((1 - min(error, MOST)) * limit, least))})
    return found


def check_reachable(
    points: Sequence[Mapping[str, float]], reference: Mapping[str, float], floor: Mapping[str, float]
) -> None:
    """Refuse what cannot be met, and what needs no search.

    Args:
        points: The limits, metric -> bound.
        reference: Costs of the reference network.
        floor: Smallest cost of any network of the space, metric by metric.

    Raises:
        BudgetError: Says the floor, or that the reference is inside already.
    """
    for point in points:
        for metric, limit in point.items():
            if limit < floor[metric]:
                raise BudgetError(
                    f"no network of this space meets {metric} <= {human(metric, limit)}: "
                    f"the smallest one takes {human(metric, floor[metric])}; raise the budget or change the space"
                )
        if all(reference[m] <= limit for m, limit in point.items()):
            words = ", ".join(f"{m} {human(m, reference[m])} <= {human(m, v)}" for m, v in point.items())
            raise BudgetError(
                f"nothing needs to be done: the reference is inside the budget ({words}); lower the budget"
            )


def human(metric: str, value: float) -> str:
    """A value with its unit, for messages."""
    if metric == "latency_ms":
        return f"{value:.3g} ms"
    unit = " B" if metric == "memory_bytes" else ""
    for power, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= power:
            return f"{value / power:.4g} {letter}{unit.strip()}"
    return f"{value:g}{unit}"


_KNOWN = f"it takes {', '.join(METRICS)}"


def _checked(metric: str, value: Limit) -> Limit:
    if isinstance(value, str):
        number = value.strip().removesuffix("%")
        if not value.strip().endswith("%") or not number.replace(".", "", 1).isdigit() or float(number) <= 0:
            raise ConfigError(f"budget.{metric} must be a number or per cent of the reference ('50%'), got {value!r}")
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigError(f"budget.{metric} must be a positive number or per cent ('50%'), got {value!r}")
    return float(value)


def _absolute(value: Limit, reference: float) -> float:
    return reference * float(value.removesuffix("%")) / 100 if isinstance(value, str) else float(value)


def words(point: Mapping[str, float]) -> str:
    """One point of the budget for a headline."""
    return ", ".join(f"{m} <= {human(m, v)}" for m, v in point.items())

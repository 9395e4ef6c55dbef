"""Numbers as people read them: costs, times, values of a metric, budgets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sartor.core.metrics import Metric, Score
from sartor.core.records import Estimate
from sartor.run.result import Entry, Result

NAMES = {"latency_ms": "latency", "macs": "MACs", "params": "parameters", "memory_bytes": "memory"}
"""Cost -> what a person calls it."""


@dataclass(frozen=True)
class Shown:
    """A network with the name that it has in tables and figures.

    Attributes:
        label: `reference`, `winner`, `uniform`, or `searched` (the search's own, where uniform scaling's has won).
        entry: What is known of it.
        point: Index of its point of the budget; None for the reference.
    """

    label: str
    entry: Entry
    point: int | None = None


def networks_at(result: Result, i: int) -> list[Shown]:
    """The networks of one point, the winner first; uniform scaling's is there also where it is the winner."""
    point = result.points[i]
    found = [Shown("winner", point.winner, i)]
    if point.uniform is not None:
        found.append(Shown("uniform", point.uniform, i))
    if point.delivered == "uniform":
        found.append(Shown("searched", point.searched, i))
    return found


def networks_of(result: Result) -> list[Shown]:
    """Every network: the reference, then those of each point."""
    below = (network for i in range(len(result.points)) for network in networks_at(result, i))
    return [Shown("reference", result.reference), *below]


def quality(metric: Metric, score: Score | None) -> str:
    """`98.1 % (97.4-98.6)`, `31.24 dB`, or a dash."""
    if score is None:
        return "-"
    if score.low is None or score.high is None:
        return metric.text(score.value)
    dash = "-" if score.low >= 0 else " to "
    return f"{metric.text(score.value)} ({metric.figure(score.low)}{dash}{metric.figure(score.high)})"


def capital(sentence: str) -> str:
    """The sentence with a capital letter."""
    return sentence[:1].upper() + sentence[1:]


def titled(metric: str) -> str:
    """A metric's name where a title begins: `Accuracy`, but `psnr` and `rmse`, which are abbreviations, as they are."""
    return capital(metric.replace("_", " ")) if len(metric) > 4 else metric


def change(metric: Metric, found: Score) -> str:
    """A difference with its interval: `+1.4 points (-0.5 to +3.6)`, `+0.31 dB, no interval`."""
    value = metric.difference(found.value)
    if found.low is None or found.high is None:
        return f"{value}, no interval"
    low, high = (metric.difference(v).partition(" ")[0] for v in (found.low, found.high))
    return f"{value} ({low} to {high})"


def milliseconds(latency: Estimate) -> str:
    """`0.940 ms (0.930-0.950)`."""
    value = f"{digits(latency.value)} ms"
    return value if latency.low == latency.high else f"{value} ({digits(latency.low)}-{digits(latency.high)})"


def text(value: object) -> str:
    """`value` as printable text of one line; empty for None."""
    if value is None:
        return ""
    return "".join(c if c.isprintable() else " " for c in str(value)).strip()


def human(value: float | None, unit: str = "") -> str:
    """Three significant digits with a prefix: `12.3 M`, `272 k`, `1.50 GB`; a dash for None."""
    if value is None:
        return "-"
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor * 0.9995:
            return f"{digits(value / factor)} {prefix}{unit}"
    return f"{value:.0f} {unit}".rstrip() if float(value).is_integer() else f"{digits(value)} {unit}".rstrip()


def digits(value: float) -> str:
    """Three significant digits without an exponent: 0.0123, 1.23, 12.3, 123, 1234."""
    if value == 0:
        return "0"
    return f"{value:.{min(max(2 - math.floor(math.log10(abs(value)) + 1e-4), 0), 9)}f}"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: `0.4 s`, `41 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds is None:
        return "-"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def amount(cost: str, value: float | None) -> str:
    """A value of a cost with its unit: `0.960 ms`, `12.3 M`."""
    if cost.endswith("_ms"):
        return "-" if value is None else f"{digits(value)} ms"
    return human(value, "B" if cost.endswith("bytes") else "")


def bound(cost: str, value: float | None) -> str:
    """A limit: as `amount`, without zeros that pretend a precision: `0.96 ms`, `12 M`."""
    head, space, unit = amount(cost, value).partition(" ")
    return (head.rstrip("0").rstrip(".") if "." in head else head) + space + unit


def name_of(cost: str) -> str:
    """What a person calls a cost."""
    return NAMES.get(cost, cost.replace("_", " "))


def limits_of(budget: Mapping[str, float]) -> str:
    """The budget in words: `latency <= 0.96 ms`."""
    return ", ".join(f"{name_of(m)} <= {bound(m, v)}" for m, v in budget.items())

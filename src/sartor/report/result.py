"""Reads `result.json` into records: whatever is missing or malformed becomes None or empty, never an error."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Raw: TypeAlias = Mapping[str, Any]

METRICS = {
    "latency_ms": ("latency", "ms"),
    "macs": ("MACs", ""),
    "params": ("parameters", ""),
    "memory_bytes": ("memory", "B"),
    "weight_bytes": ("weights", "B"),
}
"""Metric -> what a person calls it, and the unit of its values."""


@dataclass(frozen=True)
class Measured:
    """A number with its confidence interval; `low` and `high` equal `value` where none was given."""

    value: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether no interval was given."""
        return self.low == self.high


@dataclass(frozen=True)
class Network:
    """One trained and measured network; None is what nobody recorded."""

    label: str
    accuracy: Measured | None = None
    accuracy_on: str = ""
    latency_ms: Measured | None = None
    predicted_latency_ms: float | None = None
    macs: float | None = None
    params: float | None = None
    memory_bytes: float | None = None
    widths: Mapping[str, Any] = field(default_factory=dict)

    def cost(self, metric: str) -> Measured | None:
        """The value of a cost metric."""
        value = getattr(self, metric, None)
        if isinstance(value, (int, float)):
            return Measured(value, value, value)
        return value if isinstance(value, Measured) else None


@dataclass(frozen=True)
class Fitting:
    """One budget, and the networks fitted to it.

    Attributes:
        limits: Metric -> upper bound.
        winner: What was delivered.
        uniform: The uniformly scaled network, which may be the winner.
        searched: The search's own network where the uniformly scaled one is the winner.
        reason: Why that one is the winner, or is not, of which "it" is the uniformly scaled network.
        verdict: `PASS`, `FAIL`, `UNSURE`, or empty.
        tightened: Rounds in which the winner was measured over the budget and the limit was lowered, as recorded.
        folder: Where its files are, relative to the run folder.
    """

    limits: Mapping[str, float] = field(default_factory=dict)
    winner: Network | None = None
    uniform: Network | None = None
    searched: Network | None = None
    reason: str = ""
    verdict: str = ""
    sentence: str = ""
    tightened: tuple[Raw, ...] = ()
    folder: str = ""

    @property
    def networks(self) -> list[Network]:
        """Those of the budget, the winner first."""
        return [n for n in (self.winner, self.uniform, self.searched) if n is not None]


@dataclass(frozen=True)
class Result:
    """All of a `result.json`."""

    title: str
    reference: Network | None
    fittings: tuple[Fitting, ...]
    latency_model: Raw
    search: Raw
    stages: tuple[Raw, ...]
    seconds: float | None
    wall_seconds: float | None
    environment: Raw

    @property
    def metric(self) -> str:
        """The cost metric that the budgets bound."""
        for fitting in self.fittings:
            if fitting.limits:
                return next(iter(fitting.limits))
        return "latency_ms"

    @property
    def networks(self) -> list[Network]:
        """Every verified network: the reference, then those of each budget."""
        return [*([self.reference] if self.reference else []), *(n for f in self.fittings for n in f.networks)]

    @property
    def test_examples(self) -> int | None:
        """Size of the test split, if recorded."""
        count = number(mapping(self.environment.get("data")).get("test"))
        return int(count) if count else None


def read(raw: Any) -> Result:
    """The records of a decoded `result.json`."""
    raw = mapping(raw)
    search, ledger = mapping(raw.get("search")), mapping(raw.get("ledger"))
    return Result(
        title=text(raw.get("title")) or "sartor run",
        reference=_network("reference", raw.get("reference"), search),
        fittings=_fittings(raw, search),
        latency_model=mapping(raw.get("latency_model")),
        search=search,
        stages=tuple(rows(ledger.get("stages"))),
        seconds=number(ledger.get("total_seconds")),
        wall_seconds=number(ledger.get("wall_seconds")),
        environment=mapping(raw.get("environment")),
    )


def number(value: Any) -> float | None:
    """`value` if it is a number that a float can hold."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return value
    return None


def text(value: Any) -> str:
    """`value` as printable text of one line; empty for None."""
    if value is None:
        return ""
    return "".join(c if c.isprintable() else " " for c in str(value)).strip()


def mapping(value: Any) -> dict[str, Any]:
    """`value` if it is a mapping, with text as keys; else empty."""
    return {text(k): v for k, v in value.items()} if isinstance(value, Mapping) else {}


def rows(value: Any) -> list[dict[str, Any]]:
    """The mappings in the list `value`; empty if it is no list."""
    return [mapping(v) for v in value if isinstance(v, Mapping)] if isinstance(value, (list, tuple)) else []


def numbers(value: Any) -> list[float]:
    """The finite numbers in the list `value`; empty if it is no list."""
    return [n for n in map(number, value) if n is not None] if isinstance(value, (list, tuple)) else []


def measured(value: Any, interval: Any = None) -> Measured | None:
    """A number, or `{"value", "low", "high"}`, with the bounds of `interval` if that has them."""
    bounds = mapping(interval) or mapping(value)
    middle = number(mapping(value).get("value")) if isinstance(value, Mapping) else number(value)
    if middle is None:
        return None
    low, high = number(bounds.get("low")), number(bounds.get("high"))
    return Measured(middle, middle if low is None else min(low, middle), middle if high is None else max(high, middle))


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


def amount(metric: str, value: float | None) -> str:
    """A value of `metric` with its unit: `0.960 ms`, `12.3 M`."""
    if metric.endswith("_ms"):
        return "-" if value is None else f"{digits(value)} ms"
    return human(value, "B" if metric.endswith("bytes") else "")


def bound(metric: str, value: float | None) -> str:
    """A limit: as `amount`, without zeros that pretend a precision: `0.96 ms`, `12 M`."""
    head, space, unit = amount(metric, value).partition(" ")
    return (head.rstrip("0").rstrip(".") if "." in head else head) + space + unit


def name_of(metric: str) -> str:
    """What a person calls `metric`."""
    return METRICS.get(metric, (metric.replace("_", " "), ""))[0]


def limits_of(fitting: Fitting) -> str:
    """The budget in words: `latency <= 0.96 ms`; empty if none was recorded."""
    return ", ".join(f"{name_of(m)} <= {bound(m, v)}" for m, v in fitting.limits.items())


def _network(label: str, raw: Any, search: Raw) -> Network | None:
    raw = mapping(raw)
    if not raw:
        return None
    return Network(
        label=label,
        accuracy=measured(raw.get("accuracy"), raw.get("accuracy_interval")),
        accuracy_on=text(raw.get("accuracy_on")),
        latency_ms=measured(raw.get("latency_ms")),
        predicted_latency_ms=number(raw.get("predicted_latency_ms")),
        macs=number(raw.get("macs")),
        params=number(raw.get("params")),
        memory_bytes=number(raw.get("memory_bytes")),
        widths=mapping(raw.get("widths")) or _chosen(raw.get("arch"), search),
    )


def _chosen(arch: Any, search: Raw) -> dict[str, Any]:
    """Choice name -> chosen option, from indices."""
    choices = rows(search.get("choices"))
    if not isinstance(arch, (list, tuple)) or len(arch) != len(choices):
        return {}
    found = {}
    for choice, index in zip(choices, arch, strict=True):
        options = choice.get("options")
        if isinstance(options, (list, tuple)) and isinstance(index, int) and 0 <= index < len(options):
            found[text(choice.get("name"))] = options[index]
    return found


def _fittings(raw: Raw, search: Raw) -> tuple[Fitting, ...]:
    entries = rows(raw.get("curve"))
    if entries:
        return tuple(_fitting(e, search) for e in entries)
    if not any(raw.get(k) for k in ("winner", "uniform", "verdict", "budget")):
        return ()
    limits = {m: v for m, v in ((m, _first(v)) for m, v in mapping(raw.get("budget")).items()) if v is not None}
    return (_fitting({**raw, "budget": limits}, search),)


def _fitting(raw: Raw, search: Raw) -> Fitting:
    limits = {m: n for m, n in ((m, number(v)) for m, v in mapping(raw.get("budget")).items()) if n is not None}
    sentence = text(raw.get("sentence"))
    verdict = text(raw.get("verdict"))
    if " " in verdict:  # a whole sentence where a word is expected
        sentence, verdict = sentence or verdict, verdict.split()[0].rstrip(":")
    return Fitting(
        limits=limits,
        winner=_network("winner", raw.get("winner"), search),
        uniform=_network("uniform", raw.get("uniform"), search),
        searched=_network("searched", raw.get("searched"), search),
        reason=text(raw.get("reason")),
        verdict=(verdict or sentence.split(":")[0] if sentence or verdict else "").upper(),
        sentence=sentence,
        tightened=tuple(rows(raw.get("tightened"))),
        folder=text(raw.get("folder")),
    )


def _first(value: Any) -> float | None:
    return next(iter(_flat(value)), None)


def _flat(value: Any) -> Iterable[float]:
    return numbers(value if isinstance(value, (list, tuple)) else [value])

"""What quality is: a metric's name, goal, unit and kind of interval. Nothing else knows whether more of it is better.

Intervals are of the draw of the test examples only, not of how a result varies from training to training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from sartor.core.errors import ConfigError
from sartor.core.records import Objective

Goal: TypeAlias = Literal["max", "min"]
Interval: TypeAlias = Literal["proportion", "per_example", "none"]

SHARE = "share"
"""The unit of values in [0, 1] that people read in per cent."""

Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Score:
    """A metric's value on a split, with its 95 % interval where there is one.

    Attributes:
        value: On that split.
        low: Lower end of the 95 % interval; null without one.
        high: Upper end.
        examples: How many it was computed on.
    """

    value: float
    low: float | None = None
    high: float | None = None
    examples: int = 0

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return self.low is not None and self.high is not None


@dataclass(frozen=True)
class Metric:
    """How good a network is.

    Attributes:
        name: As in journals and reports: `accuracy`, `psnr`, `rmse`.
        goal: `max` if more is better, `min` if less is.
        unit: `share` for values in [0, 1] that are shown in per cent, else what is written behind the number.
        interval: Which interval its value has: `proportion` (a share of the examples: Wilson's), `per_example`
            (bootstrap over examples; what `make` gives then has `values`, `(n,)`, one per example, of which it is the
            mean, or else `resampled(times)`: its value if example `i` were there `times[i]` times), or `none`.
        make: A fresh torchmetrics metric, or anything that has `to`, `update(output, target)` and `compute`; None in
            what was read from a file.
    """

    name: str
    goal: Goal
    unit: str = ""
    interval: Interval = "none"
    make: Callable[[], Any] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.goal not in get_args(Goal) or self.interval not in get_args(Interval):
            raise ConfigError(
                f"metric {self.name!r} has goal {self.goal!r} and interval {self.interval!r}; a goal is one of "
                f"{', '.join(get_args(Goal))}, an interval one of {', '.join(get_args(Interval))}"
            )

    @property
    def objective(self) -> Objective:
        """To search for the best value of it."""
        return Objective(self.name, self.goal)

    @property
    def sign(self) -> int:
        """1 if more is better, -1 if less is."""
        return 1 if self.goal == "max" else -1

    def gain(self, value: float, over: float) -> float:
        """By how much `value` is better than `over`; negative if it is worse."""
        return self.sign * (value - over)

    def best(self, values: Iterable[float]) -> float:
        """The best of the values."""
        return max(values) if self.goal == "max" else min(values)

    def text(self, value: float) -> str:
        """A value with its unit: `98.6 %`, `31.24 dB`, `0.4215 m`."""
        return f"{self.figure(value)} {self._suffix}".rstrip()

    def figure(self, value: float) -> str:
        """The number alone, as it is shown."""
        return f"{100 * value:.1f}" if self.unit == SHARE else f"{value:.4g}"

    def precise(self, value: float) -> str:
        """A value with more digits, where two are nearly equal: `98.61 %`, `31.2412 dB`."""
        return f"{100 * value:.2f} %" if self.unit == SHARE else f"{value:.6g} {self.unit}".rstrip()

    def difference(self, value: float, *, places: int = 1) -> str:
        """A difference of two values with sign and unit: `+1.4 points` (to so many decimal places), `-0.31 dB`."""
        if self.unit == SHARE:
            return f"{round(100 * value, places) + 0.0:+.{places}f} points"  # no minus before a zero
        return f"{value:+.3g} {self.unit}".rstrip()

    @property
    def _suffix(self) -> str:
        return "%" if self.unit == SHARE else self.unit


def wilson(share: float, examples: int) -> tuple[float, float]:
    """The 95 % interval of a share of `examples` independent examples (Wilson 1927).

    Raises:
        ValueError: `share` is not in [0, 1] or `examples` is not positive.
    """
    if not 0 <= share <= 1 or examples < 1:
        raise ValueError(f"a proportion needs a share in [0, 1] and at least one example, got {share} and {examples}")
    n = examples
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, min(share, centre - half)), min(
        1.0, max(share, centre + half)
    )  # rounding may not exclude the share


def difference(new: Score, old: Score, metric: Metric) -> Score:
    """By how much `new` is better than `old`, with the interval that the intervals of both give.

    Newcombe's method 10 for proportions (Statistics in Medicine 17, 1998), which serves any two intervals (Zou and
    Donner's MOVER, 2008). It treats the networks as tested on independent examples; on a shared split that is
    conservative, as good and bad examples are mostly the same ones.
    """
    a, b = (new, old) if metric.goal == "max" else (old, new)
    value = a.value - b.value
    examples = min(new.examples, old.examples)
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Score(value, examples=examples)
    below = math.hypot(a.value - a.low, b.high - b.value)
    above = math.hypot(a.high - a.value, b.value - b.low)
    return Score(value, value - below, value + above, examples)

"""Widths that a layer may have, as fractions of a base width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Choice

MULTIPLIERS: tuple[float, ...] = tuple(float(m) for m in np.linspace(0.2, 1.5, 14))
"""The multipliers of AOWS: 14 equally spaced ones."""


def width_options(base: float, multipliers: Sequence[float], divisor: int) -> tuple[int, ...]:
    """Ascending distinct widths `max(round(base * m / divisor), 1) * divisor`; a half is rounded to even."""
    if not multipliers or min(multipliers) <= 0:
        raise ConfigError(f"multipliers must be positive and at least one; got {tuple(multipliers)}")
    if divisor < 1 or base <= 0:
        raise ConfigError(f"divisor and base width must be positive; got divisor={divisor}, base={base}")
    steps = np.maximum(np.round(base * np.asarray(multipliers, dtype=float) / divisor), 1)
    return tuple(sorted({int(s) * divisor for s in steps}))


def nearest(choices: Sequence[Choice], widths: Sequence[float]) -> Arch:
    """Per choice the option that is nearest to the wanted width; the narrower one of two equally near."""
    return tuple(
        min(range(len(c.options)), key=lambda k, c=c, w=w: (abs(float(c.options[k]) - w), float(c.options[k])))  # type: ignore[misc]
        for c, w in zip(choices, widths, strict=True)
    )

"""From groups of channels to choices: which numbers of channels are on offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sartor.core.errors import ConfigError
from sartor.core.records import Choice
from sartor.surgery.analysis.accounting import Ladder
from sartor.surgery.analysis.coupling import Group


def ladders(
    groups: Sequence[Group], multipliers: Sequence[float], divisor: int, switches: Mapping[str, int] | None = None
) -> tuple[Ladder, ...]:
    """One choice per group, with ascending numbers of units; the last option keeps all.

    A family of at least four times `divisor` units is cut in steps of `divisor`, a smaller one in single units; at
    least one unit of every family stays.

    Args:
        groups: Of the network.
        multipliers: Fractions of each family, in (0, 1]; 1 is always on offer.
        divisor: What numbers of channels are rounded to.
        switches: Name of a group -> the unit that stands for its block; it gets an option 0 that skips the block.
    """
    if not multipliers or not all(0 < m <= 1 for m in multipliers):
        raise ConfigError(f"multipliers are fractions of the channels in (0, 1]; got {list(multipliers)}")
    if divisor < 1:
        raise ConfigError(f"divisor must be at least 1; got {divisor}")
    steps, known = sorted({*multipliers, 1.0}), switches or {}
    found = (_ladder(group, steps, divisor, known.get(group.name)) for group in groups)
    return tuple(ladder for ladder in found if len(ladder.choice.options) > 1)


def _ladder(group: Group, multipliers: Sequence[float], divisor: int, switch: int | None) -> Ladder:
    sizes = np.array([len(family) for family in group.families])
    alone = np.array([switch is not None and family[0] == switch for family in group.families])
    steps = np.where(sizes >= 4 * divisor, divisor, 1)
    rows = {}
    for m in multipliers:
        kept = np.clip(np.round(m * sizes / steps) * steps, np.minimum(steps, sizes), sizes).astype(np.int64)
        if m == 1:
            kept = sizes.astype(np.int64)
        rows[int(kept[~alone].sum())] = kept
    if switch is not None:
        rows[0] = np.zeros_like(sizes)
    options = tuple(sorted(rows))
    return Ladder(Choice(group.name, options, ordered=True), group.families, np.stack([rows[o] for o in options]))


def grouped(steps: Sequence[Ladder]) -> tuple[Ladder, ...]:
    """One choice for all groups of as many units, in families of equal sizes, named like the first of them."""
    found: dict[tuple[int, ...], Ladder] = {}
    for step in steps:
        key = tuple(len(family) for family in step.families)
        known = found.get(key)
        if known is None:
            found[key] = step
        else:
            kept = np.concatenate([known.kept, step.kept], axis=1)
            found[key] = Ladder(known.choice, (*known.families, *step.families), kept)
    return tuple(found.values())

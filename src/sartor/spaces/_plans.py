"""Plain ways to narrow a network, each a line from the smallest network to the whole one.

None is good everywhere: a residual stream is best left alone in one network and cut in another, and where channels are
spare differs from layer to layer. So there are several, for a search to weigh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sartor.core.records import Arch, Choice
from sartor.spaces._options import nearest

Plan: TypeAlias = Callable[[float], Arch]
Errors: TypeAlias = NDArray[np.float64]

STREAMS: Mapping[str, float] = {"": 1.0, "_half": 0.5, "_quarter": 0.25, "_inside": 0.0}
"""How much residual streams are narrowed beside what is inside the blocks: powers of the width that remains."""
SKEWS: Mapping[str, float] = {"_early": 0.5, "_late": -0.5}
"""Whether early layers keep more than late ones, or less: powers go from e^-s/2 to e^s/2 along the network."""


def plans(
    choices: Sequence[Choice], streams: Sequence[bool], errors: Mapping[str, Sequence[Errors | None]]
) -> dict[str, Plan]:
    """Name -> a plan: a factor in [0, 1] -> the arch, wider with the factor.

    Args:
        choices: Ordered, their options numbers of channels, 0 for a block that is skipped.
        streams: Which of them are residual streams.
        errors: Measure -> per choice the error under each option, falling; None where it is not known. Under a plan of
            that name all choices have about the same error.
    """
    powers = {f"uniform{name}": np.where(streams, power, 1.0) for name, power in STREAMS.items()}
    place = np.arange(len(choices)) / max(1, len(choices) - 1)
    powers |= {f"uniform{name}": np.exp(skew * (place - 0.5)) for name, skew in SKEWS.items()}
    if any(streams) and not all(streams):
        powers["streams"] = np.where(streams, 1.0, 0.0)
    found: dict[str, Plan] = {name: partial(_scaled, choices, power) for name, power in powers.items()}
    for measure, tables in errors.items():
        for name, power in STREAMS.items():
            found[measure + name] = partial(_even, choices, tables, np.where(streams, power, 1.0))
    return found


def _scaled(choices: Sequence[Choice], powers: Errors, factor: float) -> Arch:
    shares = np.power(min(max(factor, 0.0), 1.0), powers)
    return nearest(choices, [share * float(c.options[-1]) for share, c in zip(shares, choices, strict=True)])


def _even(choices: Sequence[Choice], errors: Sequence[Errors | None], powers: Errors, factor: float) -> Arch:
    """Each choice as narrow as an error allows that is the same for all; where none is known, by the factor."""
    factor = min(max(factor, 0.0), 1.0)
    most = (1 - factor) ** 2  # an error grows about like the square of what is taken away
    shares = []
    for choice, table, power in zip(choices, errors, powers, strict=True):
        inside = None if table is None else np.flatnonzero(table <= most)
        width = float(choice.options[int(inside[0]) if inside is not None and len(inside) else -1])
        share = factor if table is None else width / float(choice.options[-1])
        shares.append(share**power if share or power else 1.0)
    return nearest(choices, [share * float(c.options[-1]) for share, c in zip(shares, choices, strict=True)])

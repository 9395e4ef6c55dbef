"""One number for quality and cost together, for methods that need one; functions of plain numbers.

`quality` is what the objective says, more being better; `ratio` the cost of a network over its target: 1 is on budget,
2 twice too slow.

Sources: MnasNet (Tan et al., CVPR 2019, arXiv:1807.11626), equations 2 and 3; TuNAS (Bender et al., CVPR 2020,
arXiv:2008.06120), the absolute reward; N2N (Ashok et al., ICLR 2018, arXiv:1709.06030), the reward of compression.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from sartor.core.errors import ConfigError
from sartor.core.records import Objective

Kind: TypeAlias = Literal["feasible", "mnas_soft", "mnas_hard", "absolute"]
"""`feasible`: the quality alone, of networks that are all within budget."""

WEIGHTS = {"feasible": 0.0, "mnas_soft": -0.07, "mnas_hard": -1.0, "absolute": -0.1}
"""The weight of the cost that each source took."""


def check_maximised(kind: str, objective: Objective) -> None:
    """A reward that multiplies by the quality is defined for one of which more is better.

    Raises:
        ConfigError: The objective is minimised.
    """
    if objective.goal == "min":
        raise ConfigError(
            f"reward {kind!r} multiplies by a quality; {objective.metric!r} is minimised: take one that does not"
        )


def mnas_soft(quality: float, ratio: float, weight: float = WEIGHTS["mnas_soft"]) -> float:
    """`quality * ratio ** weight`: a network within budget is rewarded for being cheaper still."""
    return _times(quality, ratio, weight)


def mnas_hard(quality: float, ratio: float, weight: float = WEIGHTS["mnas_hard"]) -> float:
    """The quality within budget; `quality * ratio ** weight` outside."""
    return quality if ratio <= 1 else _times(quality, ratio, weight)


_LEAST = 1e-6
"""Smallest ratio that counts: a network that costs nothing would be worth more than any other."""


def _times(quality: float, ratio: float, weight: float) -> float:
    """The product of the rewards of MnasNet, also where it was not meant for: dearer is never better.

    A quality below 0 (an R^2 of a bad network) is divided by what a positive one is multiplied by.
    """
    return quality * float(max(ratio, _LEAST) ** (weight if quality >= 0 else -weight))


def absolute(quality: float, ratio: float, weight: float = WEIGHTS["absolute"]) -> float:
    """`quality + weight * |ratio - 1|`: best is the network that just uses its budget."""
    return quality + weight * abs(ratio - 1)


def compression(share: float, quality: float, teacher: float) -> float:
    """`C (2 - C) * quality / teacher`, where `C = 1 - share` is how much of the teacher a student does without.

    Args:
        share: The student's parameters as a fraction of the teacher's.
        quality: The student's accuracy, in any unit.
        teacher: The teacher's, in the same unit.

    Raises:
        ConfigError: The teacher's accuracy is not a positive number.
    """
    if not 0 < teacher < float("inf"):
        raise ConfigError(f"the teacher's accuracy is {teacher:g}; a student is judged by its share of a positive one")
    return (1 - share**2) * quality / teacher  # C (2 - C) is 1 - (1 - C)^2


def reward(kind: Kind, quality: float, ratios: Sequence[float], weight: float | None = None) -> float:
    """The reward called `kind` with one ratio per limit: products multiply, absolute terms add up.

    Args:
        kind: Which of the rewards.
        quality: Higher is better.
        ratios: Cost over target of every limit; none leaves the quality as it is.
        weight: Of the cost; None takes the source's.

    Raises:
        ConfigError: There is no such reward.
    """
    if kind not in WEIGHTS:
        raise ConfigError(f"no reward called {kind!r}; known: {', '.join(WEIGHTS)}")
    chosen = WEIGHTS[kind] if weight is None else weight
    combine = {"mnas_soft": mnas_soft, "mnas_hard": mnas_hard, "absolute": absolute}.get(kind)
    for ratio in ratios if combine else ():
        quality = combine(quality, ratio, chosen)  # type: ignore[misc]  # None has no ratios
    return quality

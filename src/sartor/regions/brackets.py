"""Successive halving: many networks at a low fidelity, the best of them at the next, and so on.

Sources: Jamieson and Talwalkar (AISTATS 2016, arXiv:1502.07943) and Hyperband (Li et al., JMLR 2018,
arXiv:1603.06560), whose notation is used: a bracket starts `n` networks at the fidelity `eta ** -s`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Proposal


@dataclass(frozen=True)
class Rung:
    """So many networks at one fidelity."""

    count: int
    fidelity: float


def steps(least: float, eta: int) -> int:
    """`s_max`: how often `least` can be multiplied by `eta` without exceeding 1.

    Raises:
        ConfigError: `least` is not in (0, 1], or `eta` is below 2.
    """
    if not 0 < least <= 1 or eta < 2:
        raise ConfigError(f"least is {least} and eta is {eta}; least must be in (0, 1], eta at least 2")
    return math.floor(math.log(1 / least) / math.log(eta) + 1e-9)  # 1/9 is just above 3 ** -2


def bracket(networks: int, s: int, eta: int) -> list[Rung]:
    """Rungs `i = 0 .. s` with `floor(n * eta ** -i)` networks, as long as there are any, the last at fidelity 1."""
    rungs = [Rung(networks // eta**i, float(eta) ** (i - s)) for i in range(s + 1)]
    return [r for r in rungs if r.count]


def hyperband(s_max: int, eta: int) -> list[list[Rung]]:
    """The brackets `s = s_max .. 0`, which cost about the same: `n = ceil((s_max + 1) / (s + 1) * eta ** s)`."""
    return [bracket(-(-(s_max + 1) * eta**s // (s + 1)), s, eta) for s in range(s_max, -1, -1)]


class Brackets:
    """Walks through brackets, over and over.

    Args:
        brackets: The rungs of each.
    """

    def __init__(self, brackets: Sequence[Sequence[Rung]]) -> None:
        self.brackets = brackets
        self.at = (0, 0)
        """Bracket and rung."""
        self.promoted: list[Arch] = []
        """The networks of this rung, unless it is the first of a bracket."""
        self.told: list[tuple[Arch, float]] = []
        """What has been evaluated on this rung, with its loss."""

    def ask(self, count: int, draw: Callable[[], Arch]) -> list[Proposal]:
        """At most `count` networks of this rung; new ones come from `draw`."""
        rung, done = self.brackets[self.at[0]][self.at[1]], len(self.told)
        if self.at[1] == 0:
            return [Proposal(draw(), rung.fidelity) for _ in range(min(count, rung.count - done))]
        return [Proposal(arch, rung.fidelity) for arch in self.promoted[done : done + count]]

    def tell(self, results: Sequence[tuple[Arch, float]]) -> None:
        """The losses of what was asked; a failed network has an infinite one, and is not promoted."""
        self.told = [*self.told, *results]
        b, r = self.at
        rungs = self.brackets[b]
        if len(self.told) < (rungs[r].count if r == 0 else len(self.promoted)):
            return
        ranked = sorted((x for x in self.told if math.isfinite(x[1])), key=lambda x: x[1])
        self.promoted = [arch for arch, _ in ranked[: rungs[r + 1].count]] if r + 1 < len(rungs) else []
        self.at = (b, r + 1) if self.promoted else ((b + 1) % len(self.brackets), 0)
        self.told = []

    def state_dict(self) -> dict[str, Any]:
        """Where it is."""
        return {"at": self.at, "promoted": self.promoted, "told": self.told}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` took."""
        self.at, self.promoted = tuple(state["at"]), [tuple(a) for a in state["promoted"]]
        self.told = [(tuple(arch), loss) for arch, loss in state["told"]]

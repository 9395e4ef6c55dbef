"""Which options can still be completed within the limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from sartor.core.abilities import Terms
from sartor.core.contracts import CostModel, Problem
from sartor.core.records import Arch
from sartor.core.tables import Tables

Floats: TypeAlias = NDArray[np.float64]

KNOWN = 10_000
"""Answers that are kept at a time."""


class _Sums:
    """The least that completions cost, for several tables at once.

    Args:
        tables: Of one space.
        sizes: Options per choice.
    """

    def __init__(self, tables: Sequence[Tables], sizes: Sequence[int]) -> None:
        self._unary = [np.array([t.unary[i].tolist() for t in tables]) for i in range(len(sizes))]
        self._pairs = {
            key: np.array([t.pairwise[key].numpy() if key in t.pairwise else np.zeros(shape) for t in tables])
            for key, shape in _shapes(tables).items()
        }
        self.start = np.array([t.constant for t in tables])
        for unary in self._unary:
            self.start += unary.min(1)
        for pair in self._pairs.values():
            self.start += pair.min((1, 2))
        self._later = [self._own(i) for i in range(len(sizes))]
        self._earlier = [
            [(h, pair - pair.min(2)[:, :, None]) for (h, j), pair in self._pairs.items() if j == i]
            for i in range(len(sizes))
        ]

    def _own(self, i: int) -> Floats:
        """What an option of choice `i` adds to the least there was, whatever comes before, `(tables, k_i)`."""
        found = self._unary[i] - self._unary[i].min(1)[:, None]
        for (h, _), pair in self._pairs.items():
            if h == i:
                found = found + pair.min(2) - pair.min((1, 2))[:, None]
        return np.asarray(found)

    def next(self, prefix: Arch, least: Floats) -> Floats:
        """No completion of the prefix and an option costs less, `(tables, k)`; `least` is that of the prefix."""
        i = len(prefix)
        found = least[:, None] + self._later[i]
        for h, above in self._earlier[i]:
            found = found + above[:, prefix[h], :]
        return np.asarray(found)


def _shapes(tables: Sequence[Tables]) -> dict[tuple[int, int], tuple[int, ...]]:
    return {key: tuple(pair.shape) for t in tables for key, pair in t.pairwise.items()}


class Openings:
    """Options that may follow the first ones of a network.

    Costs with tables prune: an option is closed where the least that its completions cost is above a limit. Costs
    without tables are only known of whole networks, and prune nothing here.

    Args:
        problem: Its constraints are the limits.
        slack: Share of a limit that sums in another order may be off by.
    """

    def __init__(self, problem: Problem, slack: float = 1e-9) -> None:
        self.sizes = [len(c.options) for c in problem.space.choices]
        self._all = [list(range(k)) for k in self.sizes]
        costs, tables, upper = problem.costs or {}, list[Tables](), list[float]()
        for metric, limit in problem.limits().items():
            found = _terms(costs[metric]) if metric in costs else ()
            tables += found
            upper += [limit + slack * abs(limit)] * len(found)
        self._sums = _Sums(tables, self.sizes) if tables else None
        self._upper = np.array(upper)
        self._known: dict[Arch, tuple[list[int], Floats]] = {}

    def __call__(self, prefix: Arch) -> list[int]:
        """The options of the next choice that are open."""
        if self._sums is None:
            return self._all[len(prefix)]
        return self._answer(self._sums, prefix)[0]

    def _answer(self, sums: _Sums, prefix: Arch) -> tuple[list[int], Floats]:
        """Open options, and the least costs with each option, `(tables, k)`."""
        if prefix not in self._known:
            least = self._answer(sums, prefix[:-1])[1][:, prefix[-1]] if prefix else sums.start
            costs = sums.next(prefix, least)
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[prefix] = np.flatnonzero((costs <= self._upper[:, None]).all(0)).tolist(), costs
        return self._known[prefix]


def _terms(cost: CostModel) -> Sequence[Tables]:
    return cost.terms() if isinstance(cost, Terms) else ()

"""Which options can still be completed within the limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sartor.core.abilities import Terms
from sartor.core.contracts import CostModel, Problem
from sartor.core.records import Arch
from sartor.core.tables import Tables

KNOWN = 100_000
"""Answers that are kept at a time."""


class _Sum(NamedTuple):
    """A table as lists, and the least that choices not made yet can add."""

    constant: float
    unary: Sequence[Sequence[float]]
    rest: Sequence[float]
    pairs: Mapping[tuple[int, int], Sequence[Sequence[float]]]
    upper: float

    @classmethod
    def of(cls, tables: Tables, upper: float) -> _Sum:
        unary = [u.tolist() for u in tables.unary]
        rest = [sum(min(u) for u in unary[i:]) for i in range(len(unary) + 1)]
        return cls(tables.constant, unary, rest, {k: p.tolist() for k, p in tables.pairwise.items()}, upper)

    def least(self, prefix: Arch) -> float:
        """No completion costs less."""
        depth = len(prefix)
        found = self.constant + self.rest[depth] + sum(self.unary[i][a] for i, a in enumerate(prefix))
        for (i, j), pair in self.pairs.items():
            if j < depth:
                found += pair[prefix[i]][prefix[j]]
            else:
                found += min(pair[prefix[i]]) if i < depth else min(map(min, pair))
        return found


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
        costs, self._sums, self._known = problem.costs or {}, list[_Sum](), dict[Arch, list[int]]()
        for metric, upper in problem.limits().items():
            for tables in _terms(costs[metric]) if metric in costs else ():
                self._sums.append(_Sum.of(tables, upper + slack * abs(upper)))

    def __call__(self, prefix: Arch) -> list[int]:
        """The options of the next choice that are open."""
        options = self._all[len(prefix)]
        if not self._sums:
            return options
        if prefix not in self._known:
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[prefix] = [o for o in options if self._fits((*prefix, o))]
        return self._known[prefix]

    def _fits(self, prefix: Arch) -> bool:
        return all(s.least(prefix) <= s.upper for s in self._sums)


def _terms(cost: CostModel) -> Sequence[Tables]:
    return cost.terms() if isinstance(cost, Terms) else ()

"""Networks that use a budget up: a direction in the widths, scaled until it meets the limits, and filled up."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from sartor import archs
from sartor.core.contracts import Problem
from sartor.core.errors import BudgetError
from sartor.core.records import Arch
from sartor.regions.region import Region
from sartor.solvers.budgets import bisected

Floats = NDArray[np.float64]

HALVINGS = 30
"""Of the interval of factors: far finer than any two neighbouring options."""
LEAST = 1e-3
"""What stands for a width of nothing, where logarithms are taken."""


class Filler:
    """Networks inside limits that leave as little as possible of them.

    Args:
        problem: With a cost model for every limit.
        limits: Metric -> upper bound.
    """

    def __init__(self, problem: Problem, limits: Mapping[str, float]) -> None:
        self.space, self.region = problem.space, Region(problem, limits)
        self._choices = problem.space.choices
        self._numeric = [c.ordered and not any(isinstance(o, str) for o in c.options) for c in self._choices]
        self._widths = [
            np.array([float(o) for o in c.options]) / max(float(c.options[-1]), LEAST) if number else np.array([1.0])
            for c, number in zip(self._choices, self._numeric, strict=True)
        ]

    def plans(self, plans: Mapping[str, Callable[[float], Arch]]) -> dict[str, Arch]:
        """Every plan that can meet the limits, filled up.

        Raises:
            BudgetError: None can.
        """
        found = {}
        for name, plan in plans.items():
            try:
                found[name] = self.along(plan)
            except BudgetError:  # one that leaves too much alone
                continue
        if not found:
            small = archs.smallest(self.space)
            found["smallest"] = self._filled(small, self.logs(small))
        return found

    def along(self, plan: Callable[[float], Arch]) -> Arch:
        """The widest network of a plan, filled up.

        Raises:
            BudgetError: Not even its narrowest meets the limits.
        """

        def at(factor: float) -> Arch:
            return self.space.canonical(plan(factor))

        if at(1.0) in self.region:
            return at(1.0)
        if at(0.0) not in self.region:
            raise BudgetError(f"the plan's narrowest network does not meet {self.region.limits}; loosen the budget")
        low, high = bisected(lambda factor: at(factor) in self.region, 0.0, 1.0, HALVINGS)
        return self._filled(at(low), self.logs(plan(high)))

    def scaled(self, arch: Arch) -> Arch:
        """The proportions of a network, scaled to the limits.

        Raises:
            BudgetError: Not even the smallest network meets them.
        """
        if arch in self.region:
            return self._filled(arch, self.logs(arch))
        return self.scaled_to(self.logs(arch), arch)

    def scaled_to(self, logs: Floats, otherwise: Arch | None = None) -> Arch:
        """The widths with these logarithms up to a factor; choices that are no widths as in `otherwise`.

        Raises:
            BudgetError: Not even the smallest network meets the limits.
        """
        base = self.space.reference if otherwise is None else otherwise
        low, high = -16.0, float(-logs.min())
        if self._at(logs, low, base) not in self.region:
            smallest = archs.smallest(self.space)
            if smallest not in self.region:
                raise BudgetError(f"the smallest network does not meet {self.region.limits}; loosen the budget")
            return self._filled(smallest, logs)
        low, high = bisected(lambda factor: self._at(logs, factor, base) in self.region, low, high, HALVINGS)
        return self._filled(self._at(logs, low, base), logs + high)

    def logs(self, arch: Arch) -> Floats:
        """Logarithms of the widths, as shares of the widest, `(choices,)`; 0 for choices that are no widths."""
        shares = [w[a] if n else 1.0 for w, a, n in zip(self._widths, arch, self._numeric, strict=True)]
        return np.log(np.maximum(shares, LEAST))

    def _at(self, logs: Floats, factor: float, base: Arch) -> Arch:
        shares = np.exp(np.minimum(logs + factor, 0.0))
        return self.space.canonical(
            tuple(
                int(np.abs(widths - share).argmin()) if number else option
                for widths, share, number, option in zip(self._widths, shares, self._numeric, base, strict=True)
            )
        )

    def _filled(self, arch: Arch, wanted: Floats) -> Arch:
        """One option more, where the network is furthest behind what is wanted, as long as one fits."""
        while True:
            best: tuple[float, Arch] | None = None
            for i, (widths, number) in enumerate(zip(self._widths, self._numeric, strict=True)):
                if not number or arch[i] + 1 >= len(widths):
                    continue
                wider = self.space.canonical((*arch[:i], arch[i] + 1, *arch[i + 1 :]))
                behind = float(wanted[i] - np.log(max(widths[arch[i] + 1], LEAST)))
                if wider != arch and (best is None or behind > best[0]) and wider in self.region:
                    best = behind, wider
            if best is None:
                return arch
            arch = best[1]

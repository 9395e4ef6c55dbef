"""The networks within limits: membership by table look-ups, uniform draws, repair, and the best of those evaluated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sartor import archs
from sartor.core.abilities import Terms
from sartor.core.contracts import CostModel, Problem
from sartor.core.errors import CapabilityError, ConfigError
from sartor.core.records import Arch, Constraint, Proposal, Trial
from sartor.core.tables import Tables
from sartor.solvers.budgets import Budget

SINGLE, BLOCKS, BLOCK = 16, 16, 512
"""Draws one by one, then in blocks, before a draw is repaired instead."""


class Price:
    """One metric of networks: the sum, or the largest of several sums, of table entries.

    The sums are taken in the order of `Tables.__call__`, so that both agree in the last bit. A cost model without
    tables is asked, once per network.
    """

    def __init__(self, cost: CostModel) -> None:
        self._cost, self._known = cost, dict[Arch, float]()
        tables = cost.terms() if isinstance(cost, Terms) else ()
        self._arrays = [
            (t.constant, [u.numpy() for u in t.unary], [(i, j, p.numpy()) for (i, j), p in t.pairwise.items()])
            for t in tables
        ]
        self._lists = [
            (constant, [u.tolist() for u in unary], [(i, j, p.tolist()) for i, j, p in pairwise])
            for constant, unary, pairwise in self._arrays
        ]

    def parts(self, arch: Arch) -> list[float]:
        """The sums of which the cost is the largest."""
        if not self._lists:
            if arch not in self._known:
                self._known[arch] = float(self._cost([arch])[0])
            return [self._known[arch]]
        found = []
        for constant, unary, pairwise in self._lists:
            value = constant
            for table, option in zip(unary, arch, strict=True):
                value += table[option]
            for i, j, pair in pairwise:
                value += pair[arch[i]][arch[j]]
            found.append(value)
        return found

    def __call__(self, arch: Arch) -> float:
        """The cost of one network."""
        return max(self.parts(arch))

    def many(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """The costs of `(n, choices)` option indices, `(n,)`."""
        if not self._arrays:
            return np.array([self(tuple(row)) for row in index.tolist()])
        found = []
        for constant, unary, pairwise in self._arrays:
            value = np.full(len(index), constant)
            for i, table in enumerate(unary):
                value = value + table[index[:, i]]
            for i, j, pair in pairwise:
                value = value + pair[index[:, i], index[:, j]]
            found.append(value)
        return np.asarray(np.max(found, axis=0))


class Region:
    """The networks of a problem's space that meet limits.

    Args:
        problem: Its constraints are the limits; one whose metric has no cost model cannot be checked and is left out.
        limits: Metric -> upper bound, in place of the constraints.

    Raises:
        CapabilityError: A metric of `limits` has no cost model.
    """

    def __init__(self, problem: Problem, limits: Mapping[str, float] | None = None) -> None:
        self.problem, self.space = problem, problem.space
        known = problem.costs or {}
        self.limits = {m: u for m, u in problem.limits().items() if m in known} if limits is None else dict(limits)
        self.prices = {metric: Price(problem.cost(metric)) for metric in self.limits}
        self._checks = [(self.prices[metric], upper) for metric, upper in self.limits.items()]
        self._sizes = np.array([len(c.options) for c in problem.space.choices])
        self._way_out: Arch | None = None

    def __contains__(self, arch: Arch) -> bool:
        return all(price(arch) <= upper for price, upper in self._checks)

    def inside(self, index: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of `(n, choices)` option indices are inside, `(n,)`."""
        found = np.ones(len(index), dtype=np.bool_)
        for price, upper in self._checks:
            found &= price.many(index) <= upper
        return found

    def ratios(self, arch: Arch) -> list[float]:
        """Cost over limit, per limit."""
        return [price(arch) / upper if upper else float("inf") for price, upper in self._checks]

    def excess(self, arch: Arch) -> float:
        """By what shares `arch` is over its limits, in all; zero exactly inside."""
        over = [(v - upper) / (abs(upper) or 1.0) for price, upper in self._checks for v in price.parts(arch)]
        return sum(share for share in over if share > 0)

    def sample(self, rng: np.random.Generator) -> Arch:
        """Uniform among the networks inside, by rejection; where that fails, a uniform draw repaired.

        Raises:
            BudgetError: No network is inside.
        """
        for _ in range(SINGLE):
            arch = self.space.moves.draw(rng)
            if arch in self:
                return arch
        for _ in range(BLOCKS):
            index = rng.integers(self._sizes, size=(BLOCK, len(self._sizes)))
            for row in index[self.inside(index)].tolist():
                if (arch := self.space.canonical(tuple(row))) in self:
                    return arch
        return self.repair(arch, rng)

    def first(self, draw: Callable[[], Arch], rng: np.random.Generator, tries: int = 100) -> Arch:
        """The first of several draws that is inside; if none of `tries` is, the last one repaired.

        Raises:
            BudgetError: No network is inside.
        """
        for _ in range(tries):
            arch = draw()
            if arch in self:
                return arch
        return self.repair(arch, rng)

    def fresh(self, taken: Container[Arch], rng: np.random.Generator, tries: int) -> Arch | None:
        """The first of several samples that is not `taken`; None if all are.

        Raises:
            BudgetError: No network is inside.
        """
        for _ in range(tries):
            arch = self.sample(rng)
            if arch not in taken:
                return arch
        return None

    def repair(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """`arch` with one random choice after the other set to a cheaper option, as little as possible, until inside.

        Raises:
            BudgetError: No network is inside.
        """
        while (excess := self.excess(arch)) > 0:
            cheaper = self._cheaper(arch, excess)
            if not cheaper:  # only two choices together would help: any network inside must do
                return self._any(rng)
            arch = cheaper[int(rng.integers(len(cheaper)))]
        return arch

    def _cheaper(self, arch: Arch, excess: float) -> list[Arch]:
        """Per choice that can lower the excess, the network where it does so least."""
        found = []
        for i, choice in enumerate(self.space.choices):
            others = [self.space.canonical((*arch[:i], k, *arch[i + 1 :])) for k in range(len(choice.options))]
            lower = [(value, other) for other in others if (value := self.excess(other)) < excess]
            if lower:
                found.append(max(lower)[1])
        return found

    def _any(self, rng: np.random.Generator) -> Arch:
        if self._way_out is None:
            try:
                zero = Tables.zeros(self.space.choices)
                self._way_out = self.space.canonical(Budget.of(self.problem, self.limits, self).best(zero))
            except CapabilityError:  # no tables: towards the first options, then
                constraints = tuple(Constraint(metric, upper) for metric, upper in self.limits.items())
                return archs.sample_feasible(replace(self.problem, constraints=constraints), rng)
        return self._way_out


def answer(problem: Problem, trials: Sequence[Trial], limits: Mapping[str, float], rng: np.random.Generator) -> Arch:
    """The best trial under `limits`, of those with the largest fidelity; if there is none, a random network that fits.

    Raises:
        BudgetError: No network meets them.
    """
    region = Region(problem, limits)
    known = [t for t in trials if t.ok and t.arch in region]
    if not known:
        return region.sample(rng)
    top = max(t.fidelity for t in known)
    return min((t for t in known if t.fidelity == top), key=problem.objectives[0].loss).arch


def proposals(count: int, draw: Callable[[Collection[Arch]], Arch | None]) -> list[Proposal]:
    """Up to `count` networks, one drawn after another.

    Args:
        count: How many are wanted.
        draw: Those drawn before -> another one; None where there is none.
    """
    found = dict[Arch, None]()
    while len(found) < count and (arch := draw(found)) is not None:
        found[arch] = None
    return [Proposal(arch) for arch in found]


def at_least_one(**settings: int) -> None:
    """Settings that count something.

    Raises:
        ConfigError: One is below 1.
    """
    for name, value in settings.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")

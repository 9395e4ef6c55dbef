"""A problem's constraints as the solvers take them: budget levels, the best arch, and sampling probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from sartor.core.abilities import Terms, require
from sartor.core.contracts import CostModel, Problem
from sartor.core.errors import CapabilityError
from sartor.core.records import Arch
from sartor.core.tables import Tables
from sartor.solvers import chain, constrained
from sartor.solvers.relaxation import Bound, Model, dual

Decoder: TypeAlias = Literal["exact", "lagrangian"]


def levels(problem: Problem) -> list[dict[str, float]]:
    """The budgets that one search serves, loosest first, each metric -> upper bound.

    A constraint with fewer levels than another repeats its tightest one.
    """
    bounds = {c.metric: problem.levels(c.metric) for c in problem.constraints}
    count = max((len(b) for b in bounds.values()), default=1)
    return [{m: b[min(i, len(b) - 1)] for m, b in bounds.items()} for i in range(count)]


def feasible_levels(problem: Problem, by: object, decoder: Decoder = "exact") -> list[dict[str, float]]:
    """The same, after a look whether some network meets each: what is wrong shows before a training.

    Raises:
        BudgetError: None meets one.
        CapabilityError: A limited cost has no tables.
    """
    found = levels(problem)
    for limits in found:
        Budget.of(problem, limits, by).best(Tables.zeros(problem.space.choices), decoder)
    return found


def within(problem: Problem, arch: Arch, limits: Mapping[str, float]) -> bool:
    """Whether `arch` meets every limit."""
    return all(float(problem.cost(m)([arch])[0]) <= upper for m, upper in limits.items())


def bisected(inside: Callable[[float], bool], low: float, high: float, halvings: int) -> tuple[float, float]:
    """The largest factor found inside, and the smallest found outside, of networks that grow with a factor.

    Args:
        inside: Whether the network of a factor meets the limits.
        low: A factor whose network does.
        high: One whose network does not.
        halvings: Of the interval between them.
    """
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) else (low, middle)
    return low, high


def terms_of(cost: CostModel, by: object) -> Sequence[Tables]:
    """The tables of a cost: a single one if it is their sum, several if it is the largest of their sums.

    Args:
        cost: Of any problem.
        by: Who needs them, for messages.

    Raises:
        CapabilityError: It has none.
    """
    terms = require(cost, Terms, by).terms()
    if not terms:
        raise CapabilityError(
            f"{by if isinstance(by, str) else type(by).__name__} needs {cost.metric} as a sum of table entries "
            f"(Terms), which {type(cost).__name__} cannot give for this space; take a strategy that only asks for costs"
        )
    return terms


@dataclass(frozen=True)
class Budget:
    """Limits with their cost tables.

    Attributes:
        additive: Costs that are sums of table entries.
        peaks: Costs that are the largest of several sums, one entry per table.
    """

    additive: tuple[Bound, ...]
    peaks: tuple[Bound, ...]

    @classmethod
    def of(cls, problem: Problem, limits: Mapping[str, float], by: object) -> Budget:
        """The tables of every limited metric.

        Raises:
            CapabilityError: A metric has no cost model, or one without tables.
        """
        additive: list[Bound] = []
        peaks: list[Bound] = []
        for metric, upper in limits.items():
            terms = terms_of(problem.cost(metric), by)
            (additive if len(terms) == 1 else peaks).extend((tables, upper) for tables in terms)
        return cls(tuple(additive), tuple(peaks))

    def best(self, loss: Tables, decoder: Decoder = "exact") -> Arch:
        """The arch with the least loss within the limits.

        Args:
            loss: Lower is better.
            decoder: `exact` is optimal for every limit and honours all of them; `lagrangian` is AOWS's decoding, for
                one additive limit, optimal on the convex hull only.

        Raises:
            BudgetError: No arch meets the limits.
            CapabilityError: `lagrangian` with anything but one additive limit.
        """
        if decoder == "exact":
            return constrained.optimum(loss, self.additive, peaks=self.peaks).arch
        if len(self.additive) != 1 or self.peaks:
            raise CapabilityError(
                f"the lagrangian decoder takes one additive limit, here are {len(self.additive)} and "
                f"{len(self.peaks)} peaks; use decoder = 'exact'"
            )
        return chain.lagrangian(loss, *self.additive[0]).arch

    def probabilities(self, loss: Tables, temperature: float) -> list[Tensor]:
        """Marginals of `exp(-(loss + sum_m gamma_m cost_m) / temperature)`, `(k_i,)` each (AOWS, eqs. 6 and 7).

        The multipliers are those at which the most likely arch just meets the limits; archs over a peak have
        probability zero.

        Raises:
            BudgetError: No arch meets the limits.
        """
        found = dual(Model.of(loss, self.additive, self.peaks))
        energy = loss
        for (tables, _), gamma in zip(self.additive, found.multipliers, strict=True):
            energy = energy + tables * float(gamma)
        for tables, upper in self.peaks:
            energy = energy + _forbid(tables, upper)
        return chain.marginals(energy, temperature)


def _forbid(tables: Tables, upper: float) -> Tables:
    """Infinite where tables that depend on at most two choices (as the relaxation checks) exceed `upper`, else zero."""
    zeros = [torch.zeros_like(u) for u in tables.unary]
    live = sorted({i for i, u in enumerate(tables.unary) if u.any()} | {i for pair in tables.pairwise for i in pair})
    if len(live) < 2:
        i = live[0] if live else 0
        return Tables((*zeros[:i], _wall(tables.unary[i] + tables.constant, upper), *zeros[i + 1 :]))
    i, j = live
    value = tables.unary[i][:, None] + tables.unary[j] + tables.constant
    return Tables(tuple(zeros), {(i, j): _wall(value + tables.pairwise.get((i, j), 0.0), upper)})


def _wall(value: Tensor, upper: float) -> Tensor:
    return torch.zeros_like(value).masked_fill(value > upper, torch.inf)

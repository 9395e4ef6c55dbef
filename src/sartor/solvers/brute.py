"""The oracle: every arch is looked at. For tests and for spaces of at most a million archs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from sartor.core.errors import BudgetError, CapabilityError
from sartor.core.records import Arch
from sartor.core.tables import Tables
from sartor.solvers.solution import Solution

MAX_ARCHS = 1_000_000


def archs(tables: Tables) -> list[Arch]:
    """All archs in lexicographic order.

    Raises:
        CapabilityError: There are more than `MAX_ARCHS`.
    """
    total = 1
    for table in tables.unary:
        total *= len(table)
    if total > MAX_ARCHS:
        raise CapabilityError(f"enumeration takes at most {MAX_ARCHS} archs, this space has {total}; use solvers.chain")
    return list(product(*(range(len(table)) for table in tables.unary)))


def minimum(tables: Tables) -> tuple[Arch, float]:
    """Like `chain.minimum`; among ties the first arch in lexicographic order."""
    every = archs(tables)
    values = tables(every)
    best = int(values.argmin())
    if values[best] == torch.inf:
        raise BudgetError("every arch is forbidden by an infinite entry; loosen the limits")
    return every[best], float(values[best])


def marginals(tables: Tables, temperature: float = 1.0) -> list[Tensor]:
    """Like `chain.marginals`."""
    every = archs(tables)
    probs = torch.softmax(-(tables(every) - tables(every).min()) / temperature, dim=0)
    index = torch.tensor(every)
    return [
        torch.zeros(len(u), dtype=torch.float64).index_add(0, index[:, i], probs) for i, u in enumerate(tables.unary)
    ]


def optimum(
    loss: Tables, constraints: Sequence[tuple[Tables, float]], *, peaks: Sequence[tuple[Tables, float]] = ()
) -> Solution:
    """Like `constrained.optimum`, for any peaks; among ties the first arch in lexicographic order."""
    every = archs(loss)
    values = loss(every)
    for tables, limit in (*constraints, *peaks):
        cost = tables(every)
        values = torch.where((cost <= limit) & (cost != torch.inf), values, torch.inf)
    best = int(values.argmin())
    if values[best] == torch.inf:
        least = [f"{float(tables(every).min()):.6g} (limit {limit:.6g})" for tables, limit in (*constraints, *peaks)]
        raise BudgetError(f"no arch meets all limits; the smallest reachable costs are {least}; loosen a limit")
    costs = tuple(tables.cost(every[best]) for tables, _ in constraints)
    value = float(values[best])
    return Solution(every[best], value, costs, value, True, None, len(every))

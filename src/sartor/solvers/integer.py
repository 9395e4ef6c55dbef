"""The second oracle: the constrained minimum as an integer programme, solved by HiGHS.

Independent of the dynamic programme and of the shape of the couplings, but slower, and exact only to the tolerances of
HiGHS (1e-6 on constraints and integrality).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import csr_array

from sartor.core.errors import BudgetError
from sartor.core.tables import Tables
from sartor.solvers.frontier import Edge, Floats
from sartor.solvers.solution import Solution


def optimum(loss: Tables, constraints: Sequence[tuple[Tables, float]]) -> Solution:
    """Like `constrained.optimum` for finite tables; costs may exceed a limit by the tolerance of HiGHS.

    One binary per option and one variable per entry of a coupled pair, which equals the product of its two options
    because each of its rows and columns sums to one option's binary (the local polytope of Wainwright and Jordan 2008).

    Raises:
        BudgetError: No arch meets the limits.
    """
    sizes = [len(u) for u in loss.unary]
    edges = sorted({e for t in (loss, *(c for c, _ in constraints)) for e in t.pairwise})
    starts = list(accumulate([*sizes, *(sizes[i] * sizes[j] for i, j in edges)], initial=0))
    rows, right = _consistency(sizes, edges, starts)
    limits = [
        LinearConstraint(_vector(t, edges, starts)[None], -np.inf, limit - t.constant) for t, limit in constraints
    ]
    found = milp(
        _vector(loss, edges, starts),
        constraints=[LinearConstraint(rows, right, right), *limits],
        integrality=np.arange(starts[-1]) < starts[len(sizes)],
        bounds=(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        raise BudgetError(f"no arch meets the limits {[limit for _, limit in constraints]}; loosen one of them")
    arch = tuple(int(found.x[a:b].argmax()) for a, b in pairwise(starts[: len(sizes) + 1]))
    bound = float(found.mip_dual_bound) + loss.constant
    costs = tuple(t.cost(arch) for t, _ in constraints)
    return Solution(arch, loss.cost(arch), costs, bound, found.status == 0, None, int(found.mip_node_count))


def _vector(tables: Tables, edges: Sequence[Edge], starts: Sequence[int]) -> Floats:
    """The entries of `tables`, laid out like the variables."""
    vector = np.zeros(starts[-1])
    for i, table in enumerate(tables.unary):
        vector[starts[i] : starts[i + 1]] = table.numpy()
    for n, edge in enumerate(edges, start=len(tables.unary)):
        if edge in tables.pairwise:
            vector[starts[n] : starts[n + 1]] = tables.pairwise[edge].numpy().reshape(-1)
    return vector


def _consistency(sizes: Sequence[int], edges: Sequence[Edge], starts: Sequence[int]) -> tuple[csr_array, Floats]:
    """One option per choice; each line of a pair's entries sums to the binary of its option."""
    lines: list[tuple[list[int], int | None]] = [
        (list(range(starts[i], starts[i + 1])), None) for i in range(len(sizes))
    ]
    for n, (i, j) in enumerate(edges, start=len(sizes)):
        index = starts[n] + np.arange(sizes[i] * sizes[j]).reshape(sizes[i], sizes[j])
        lines += [(row.tolist(), starts[i] + a) for a, row in enumerate(index)]
        lines += [(column.tolist(), starts[j] + a) for a, column in enumerate(index.T)]
    matrix = np.zeros((len(lines), starts[-1]))
    for r, (ones, minus) in enumerate(lines):
        matrix[r, ones] = 1.0
        if minus is not None:
            matrix[r, minus] = -1.0
    return csr_array(matrix), np.array([float(minus is None) for _, minus in lines])

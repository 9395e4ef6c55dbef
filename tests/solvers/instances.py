"""Small random tables, and an integer programme that knows nothing of dynamic programming."""

from itertools import pairwise

import numpy as np
import torch
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import coo_array

from sartor.core.tables import Tables


def chain_edges(n):
    return list(pairwise(range(n)))


def residual_edges(stages, blocks):
    """Stage widths first, then the inner widths; each stage's first inner width also touches the previous stage."""
    inner = [(s, stages + s * blocks + b) for s in range(stages) for b in range(blocks)]
    entry = [(s, stages + (s + 1) * blocks) for s in range(stages - 1)]
    return chain_edges(stages) + inner + entry


def tables(rng, sizes, edges, kind="real", holes=0.0):
    """`kind`: real, integer (many ties), or decimal (sums that depend on the order of addition)."""

    def draw(*shape):
        whole = rng.integers(0, 12, shape).astype(np.float64)
        values = {"real": rng.random(shape), "integer": whole, "decimal": whole / 10}[kind]
        values[rng.random(shape) < holes] = np.inf
        return torch.from_numpy(values)

    unary = tuple(draw(k) for k in sizes)
    return Tables(unary, {(i, j): draw(sizes[i], sizes[j]) for i, j in edges}, float(rng.integers(3)))


def couplings(rng, n, shape):
    if shape == "chain":
        return chain_edges(n)
    every = [(i, j) for i in range(n) for j in range(i + 1, n)]
    return [e for e in every if rng.random() < 0.5] if shape == "any" else []


def reachable_limit(rng, cost, archs):
    """A limit that some arch meets exactly."""
    values = np.sort(cost(archs).numpy())
    return float(values[int(rng.integers(len(values)))])


def integer_programme(loss, constraints):
    """The least loss by HiGHS: one binary per option and one variable per entry of a pair, None if infeasible."""
    sizes = [len(u) for u in loss.unary]
    edges = sorted({e for t in (loss, *(c for c, _ in constraints)) for e in t.pairwise})
    starts = np.cumsum([0, *sizes, *(sizes[i] * sizes[j] for i, j in edges)])
    pairs = {e: int(starts[len(sizes) + n]) for n, e in enumerate(edges)}

    def vector(t):
        out = np.zeros(starts[-1])
        for i, u in enumerate(t.unary):
            out[starts[i] : starts[i + 1]] = u.numpy()
        for e, grid in t.pairwise.items():
            out[pairs[e] : pairs[e] + grid.numel()] = grid.numpy().ravel()
        return out

    entries, right = [], []
    for i, k in enumerate(sizes):
        entries += [(len(right), starts[i] + a, 1.0) for a in range(k)]
        right.append(1.0)
    for i, j in edges:
        index = pairs[i, j] + np.arange(sizes[i] * sizes[j]).reshape(sizes[i], sizes[j])
        for c, lines in ((i, index), (j, index.T)):
            for a, line in enumerate(lines):
                entries += [(len(right), v, 1.0) for v in line] + [(len(right), starts[c] + a, -1.0)]
                right.append(0.0)
    rows, columns, values = zip(*entries, strict=True)
    consistent = coo_array((values, (rows, columns)), shape=(len(right), starts[-1])).tocsr()
    limits = [LinearConstraint(vector(t)[None], -np.inf, limit - t.constant) for t, limit in constraints]
    binary = np.r_[np.ones(starts[len(sizes)]), np.zeros(starts[-1] - starts[len(sizes)])]
    found = milp(
        vector(loss),
        constraints=[LinearConstraint(consistent, right, right), *limits],
        integrality=binary,
        bounds=(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    return None if found.x is None else float(found.fun) + loss.constant

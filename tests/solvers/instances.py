"""Small random tables."""

from itertools import pairwise

import numpy as np
import torch

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

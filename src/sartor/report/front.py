"""Pareto front and hypervolume of (cost, quality) pairs: lower cost is better, higher quality unless it is an error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

from sartor.core.metrics import Goal

Point: TypeAlias = tuple[float, float]
"""Cost (to minimise) and quality (to maximise, or to minimise)."""


def pareto(points: Sequence[Point], goal: Goal = "max") -> list[int]:
    """Indices of the points that no other point dominates, by rising cost.

    A point dominates another if it is no worse in both and better in one. Of equal points the first counts; points with
    a number that is not finite never do.

    Args:
        points: Pairs of cost and quality.
        goal: Whether more or less quality is better.
    """
    array = _array(points)
    usable = np.flatnonzero(np.isfinite(array).all(axis=1))
    array[:, 1] *= 1 if goal == "max" else -1
    # Last key first: by cost, at equal cost the best first, at equal quality the earliest.
    order = usable[np.lexsort((usable, -array[usable, 1], array[usable, 0]))]
    quality = array[order, 1]
    best_before = np.concatenate(([-np.inf], np.maximum.accumulate(quality)[:-1])) if len(order) else quality
    return [int(i) for i in order[quality > best_before]]


def hypervolume(points: Sequence[Point], reference: Point, goal: Goal = "max") -> float:
    """Area that the points dominate within cost <= `reference[0]` and quality no worse than `reference[1]`.

    Its unit is that of the cost times that of the quality. Points beyond the reference add nothing.
    """
    sign = 1 if goal == "max" else -1
    inside = [(c, sign * q) for c, q in points if c < reference[0] and sign * q > sign * reference[1]]
    area, floor = 0.0, sign * reference[1]
    for i in pareto(inside):
        cost, quality = inside[i]
        area += (reference[0] - cost) * (quality - floor)
        floor = quality
    return float(area)


def hypervolume_history(points: Iterable[Point], reference: Point, goal: Goal = "max") -> list[float]:
    """The hypervolume after each of the points, in their order: how a search improved over its trials."""
    front: list[Point] = []
    history: list[float] = []
    for point in points:
        front = [*front, point]
        front = [front[i] for i in pareto(front, goal)]
        history.append(hypervolume(front, reference, goal))
    return history


def _array(points: Sequence[Point]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.array(points, dtype=np.float64).reshape(len(points), 2)

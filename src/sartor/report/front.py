"""Pareto front and hypervolume of (cost, accuracy) pairs: lower cost and higher accuracy are better."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

Point: TypeAlias = tuple[float, float]
"""Cost (to minimise) and accuracy (to maximise)."""


def pareto(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other point dominates, by rising cost.

    A point dominates another if it is no worse in both and better in one. Of equal points the first counts; points with
    a number that is not finite never do.
    """
    array = _array(points)
    usable = np.flatnonzero(np.isfinite(array).all(axis=1))
    # Last key first: by cost, at equal cost the most accurate first, at equal accuracy the earliest.
    order = usable[np.lexsort((usable, -array[usable, 1], array[usable, 0]))]
    accuracy = array[order, 1]
    best_before = np.concatenate(([-np.inf], np.maximum.accumulate(accuracy)[:-1])) if len(order) else accuracy
    return [int(i) for i in order[accuracy > best_before]]


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Area that the points dominate within cost <= `reference[0]` and accuracy >= `reference[1]`.

    Its unit is that of the cost times that of the accuracy. Points beyond the reference add nothing.
    """
    inside = [(c, a) for c, a in points if c < reference[0] and a > reference[1]]
    area, floor = 0.0, reference[1]
    for i in pareto(inside):
        cost, accuracy = inside[i]
        area += (reference[0] - cost) * (accuracy - floor)
        floor = accuracy
    return float(area)


def hypervolume_history(points: Iterable[Point], reference: Point) -> list[float]:
    """The hypervolume after each of the points, in their order: how a search improved over its trials."""
    front: list[Point] = []
    history: list[float] = []
    for point in points:
        front = [*front, point]
        front = [front[i] for i in pareto(front)]
        history.append(hypervolume(front, reference))
    return history


def _array(points: Sequence[Point]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.asarray(points, dtype=np.float64).reshape(len(points), 2)

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sartor.report.front import hypervolume, hypervolume_history, pareto

# Few distinct values, so that ties and duplicates are common.
POINTS = st.lists(st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float)), max_size=12)


def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@given(POINTS)
def test_front_is_what_nothing_dominates(points):
    front = pareto(points)
    best = {p for p in points if not any(dominates(q, p) for q in points)}
    assert {points[i] for i in front} == best
    assert len(front) == len(best), "of equal points one counts"
    assert all(points.index(points[i]) == i for i in front), "and that is the first"
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


@given(POINTS)
def test_hypervolume_counts_the_dominated_cells(points):
    # Coordinates are integers: the area is the number of unit cells that some point covers.
    cells = sum(any(c <= x and a >= y + 1 for c, a in points) for x in range(5) for y in range(1, 6))
    assert hypervolume(points, (5.0, 1.0)) == cells


def test_hypervolume_by_hand():
    assert hypervolume([(1.0, 0.5), (2.0, 0.9), (2.5, 0.8)], (4.0, 0.0)) == pytest.approx(3 * 0.5 + 2 * 0.4)
    assert hypervolume([], (1.0, 0.0)) == 0.0


def test_history_is_the_hypervolume_of_every_prefix():
    rng = np.random.default_rng(0)
    points = [(float(c), float(a)) for c, a in rng.random((40, 2))]
    history = hypervolume_history(points, (1.0, 0.0))
    assert history == pytest.approx([hypervolume(points[: i + 1], (1.0, 0.0)) for i in range(40)])
    assert history == sorted(history)


def test_points_that_are_not_finite_are_no_results():
    assert pareto([(math.nan, 1.0), (1.0, math.inf), (2.0, 0.5), (-math.inf, 0.9)]) == [2]


@given(POINTS)
def test_an_error_to_be_minimised_is_the_mirror(points):
    mirror = [(c, -q) for c, q in points]
    assert pareto(mirror, "min") == pareto(points)
    assert hypervolume(mirror, (5.0, -1.0), "min") == hypervolume(points, (5.0, 1.0))

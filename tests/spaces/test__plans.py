from __future__ import annotations

import numpy as np
import pytest

from sartor.core.records import Choice
from sartor.spaces._plans import plans

CHOICES = [Choice(name, tuple(range(1, 33)), ordered=True) for name in "abc"]
STREAMS = [True, False, False]
ERROR = np.linspace(1, 0, 32) ** 2


def widths(arch):
    return [c.options[a] for c, a in zip(CHOICES, arch, strict=True)]


def found(errors=None):
    return plans(CHOICES, STREAMS, errors or {})


def test_uniform_is_the_same_share_of_all():
    assert widths(found()["uniform"](0.5)) == [16, 16, 16]


def test_streams_and_blocks_are_narrowed_apart():
    known = found()
    assert widths(known["uniform_inside"](0.25)) == [32, 8, 8]
    assert widths(known["uniform_half"](0.25)) == [16, 8, 8]
    assert widths(known["streams"](0.25)) == [8, 32, 32]


def test_early_and_late_layers():
    known = found()
    early, late = widths(known["uniform_early"](0.5)), widths(known["uniform_late"](0.5))
    assert early == sorted(early, reverse=True)
    assert early != late == early[::-1]


def test_without_streams_there_is_no_plan_for_them():
    assert "streams" not in plans(CHOICES, [False] * 3, {})
    assert "streams" not in plans(CHOICES, [True] * 3, {})


def test_equal_errors():
    robust = ERROR / 2
    known = found({"error": [ERROR, ERROR, robust]})
    a, b, c = widths(known["error"](0.5))
    assert a == b
    assert c < b
    assert robust[c - 1] <= 0.25 < robust[c - 2]
    assert widths(known["error_inside"](0.5))[0] == 32


def test_choices_without_an_error_go_by_the_factor():
    assert widths(found({"error": [None, ERROR, None]})["error"](0.5))[::2] == [16, 16]


@pytest.mark.parametrize("name", sorted(found({"own_error": [ERROR] * 3, "error": [ERROR, None, ERROR / 3]})))
def test_all_grow_from_the_smallest_to_the_whole(name):
    plan = found({"own_error": [ERROR] * 3, "error": [ERROR, None, ERROR / 3]})[name]
    archs = np.array([plan(f) for f in np.linspace(0, 1, 60)])
    assert (np.diff(archs, axis=0) >= 0).all()
    assert tuple(archs[-1]) == (31, 31, 31)
    assert archs[0].min() == 0
    assert plan(-1.0) == plan(0.0)
    assert plan(2.0) == plan(1.0)

from __future__ import annotations

from sartor.core.records import Choice
from sartor.spaces._options import MULTIPLIERS, nearest, width_options


def test_multipliers():
    assert len(MULTIPLIERS) == 14
    assert (MULTIPLIERS[0], MULTIPLIERS[-1]) == (0.2, 1.5)


def test_a_half_is_rounded_to_even_and_nothing_vanishes():
    assert width_options(4, (1.0, 3.0, 5.0), 8) == (8, 16)  # 0.5, 1.5 and 2.5 steps: 0 (at least 1), 2 and 2
    assert width_options(16, (1.0, 0.01), 8) == (8, 16)


def test_nearest_takes_the_narrower_of_two():
    choices = [Choice("a", (8, 16, 24), ordered=True)]
    assert [nearest(choices, [w]) for w in (0, 12, 12.1, 19, 99)] == [(0,), (0,), (1,), (1,), (2,)]

from __future__ import annotations

import numpy as np
import pytest

from sartor.core.errors import ConfigError
from sartor.surgery.analysis.coupling import Group
from sartor.surgery.analysis.ladders import grouped, ladders


def group(*sizes, name="a"):
    starts = np.cumsum([0, *sizes])
    families = tuple(np.arange(a, a + n) for a, n in zip(starts, sizes, strict=False))
    return Group(name, families, (name,))


def test_options_are_rounded_and_ascend_to_all():
    (ladder,) = ladders([group(64)], (0.9, 0.1, 0.5), 8)
    assert ladder.choice.name == "a"
    assert ladder.choice.ordered
    assert ladder.choice.options == (8, 32, 56, 64)
    assert ladder.kept.tolist() == [[8], [32], [56], [64]]


def test_few_channels_are_counted_singly_and_one_stays():
    (ladder,) = ladders([group(10)], (0.01, 0.25, 0.5, 1.0), 8)
    assert ladder.choice.options == (1, 2, 5, 10)
    assert ladders([group(31)], (0.5,), 8)[0].choice.options == (16, 31)
    assert ladders([group(32)], (0.45,), 8)[0].choice.options == (16, 32)
    assert ladders([group(32)], (0.01,), 8)[0].choice.options == (8, 32)


def test_sizes_that_the_divisor_does_not_divide_are_whole_at_the_end():
    (ladder,) = ladders([group(35)], (0.5, 0.99), 8)
    assert ladder.choice.options == (16, 32, 35)
    assert ladder.kept.max() == 35


def test_every_family_keeps_the_same_share():
    (ladder,) = ladders([group(64, 6)], (0.25, 0.5), 8)
    assert ladder.kept.tolist() == [[16, 2], [32, 3], [64, 6]]
    assert ladder.choice.options == (18, 35, 70)
    assert [len(f) for f in ladder.families] == [64, 6]


def test_what_offers_a_single_width_is_no_choice():
    assert ladders([group(1), group(8, name="b")], (1.0,), 8) == ()
    assert [step.choice.name for step in ladders([group(1), group(8, name="b")], (0.5,), 8)] == ["b"]


@pytest.mark.parametrize("multipliers", [(), (0.0, 1.0), (0.5, 1.5), (-0.5,)])
def test_multipliers_are_fractions(multipliers):
    with pytest.raises(ConfigError, match="fractions of the channels"):
        ladders([group(8)], multipliers, 8)


def test_the_divisor_is_positive():
    with pytest.raises(ConfigError, match="divisor must be at least 1; got 0"):
        ladders([group(8)], (0.5,), 0)


def test_groups_of_as_many_channels_are_one_choice():
    groups = [group(16, name="a"), group(8, name="b"), group(16, name="c")]
    groups[2] = Group("c", (groups[2].families[0] + 100,), ("c",))
    a, b = grouped(ladders(groups, (0.5,), 4))
    assert (a.choice.name, a.choice.options, a.kept.tolist()) == ("a", (8, 16), [[8, 8], [16, 16]])
    assert [family[0] for family in a.families] == [0, 100]
    assert (b.choice.name, b.kept.tolist()) == ("b", [[4], [8]])

from __future__ import annotations

import math

import pytest

from sartor.core.errors import ConfigError
from sartor.rewards import absolute, mnas_hard, mnas_soft, reward


def test_soft_product_by_hand():
    assert mnas_soft(0.8, 1.0) == 0.8
    assert math.isclose(mnas_soft(0.8, 2.0), 0.8 / 2**0.07)
    assert math.isclose(mnas_soft(0.8, 0.25), 0.8 * 4**0.07)
    # MnasNet's reason for 0.07: twice the latency is worth about 5 % of the accuracy.
    assert math.isclose(mnas_soft(1.05, 2.0), 1.0, abs_tol=1e-3)


def test_hard_product_by_hand():
    assert mnas_hard(0.8, 1.0) == mnas_hard(0.8, 0.1) == 0.8
    assert math.isclose(mnas_hard(0.8, 1.6), 0.5)
    assert math.isclose(mnas_hard(0.8, 4.0, -0.5), 0.4)


def test_absolute_by_hand_is_best_on_budget():
    assert absolute(0.8, 1.0) == 0.8
    assert math.isclose(absolute(0.8, 1.5), 0.75)
    assert math.isclose(absolute(0.8, 0.5), 0.75)
    assert math.isclose(absolute(-3.0, 2.0, -1.0), -4.0)


def test_several_limits():
    assert math.isclose(reward("mnas_soft", 0.5, [2.0, 3.0]), 0.5 * 6**-0.07)
    assert math.isclose(reward("mnas_hard", 0.5, [2.0, 0.3]), 0.25)
    assert math.isclose(reward("absolute", 0.5, [2.0, 0.5], -0.2), 0.5 - 0.2 - 0.1)
    assert reward("feasible", 0.5, [2.0, 9.0]) == 0.5
    assert all(reward(kind, 0.5, []) == 0.5 for kind in ("feasible", "mnas_soft", "mnas_hard", "absolute"))


def test_unknown():
    with pytest.raises(ConfigError, match="no reward called 'soft'; known: feasible"):
        reward("soft", 0.5, [])

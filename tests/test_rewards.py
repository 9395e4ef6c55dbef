from __future__ import annotations

import math

import pytest

from sartor.core.errors import ConfigError
from sartor.rewards import absolute, compression, mnas_hard, mnas_soft, reward


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


@pytest.mark.parametrize("kind", ["mnas_soft", "mnas_hard", "absolute"])
@pytest.mark.parametrize("quality", [-3.0, -0.2, 0.0, 0.4, 1.0])
def test_dearer_is_never_better_above_the_budget_and_better_never_worse(kind, quality):
    ratios = [1.0, 1.01, 1.5, 3.0, 100.0]
    found = [reward(kind, quality, [ratio]) for ratio in ratios]
    assert found == sorted(found, reverse=True)
    assert all(reward(kind, quality + 0.1, [ratio]) > r for ratio, r in zip(ratios, found, strict=True))


@pytest.mark.parametrize("kind", ["mnas_soft", "mnas_hard", "absolute"])
def test_a_network_that_costs_nothing(kind):
    assert math.isfinite(reward(kind, 0.5, [0.0]))
    assert reward(kind, 0.6, [0.0]) > reward(kind, 0.5, [0.0])


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


@pytest.mark.parametrize(
    ("ratio", "accuracy", "teacher", "published"),
    [
        (0.8470, 71.64, 73.71, 0.9492),  # VGG-19
        (0.8876, 71.91, 78.68, 0.9024),  # ResNet-18
        (0.8664, 75.47, 78.71, 0.9417),  # ResNet-34
        (0.8298, 68.17, 71.14, 0.9305),  # ShuffleNet
    ],
)
def test_compression_is_as_published(ratio, accuracy, teacher, published):
    assert compression(1 - ratio, accuracy, teacher) == pytest.approx(published, abs=5e-5)


def test_compression_at_its_ends():
    assert compression(1.0, 0.9, 0.9) == 0.0
    assert compression(0.0, 0.9, 0.9) == 1.0
    assert compression(1.1, 0.9, 0.9) < 0


@pytest.mark.parametrize("teacher", [0.0, -1.0, math.nan, math.inf])
def test_compression_needs_a_teacher_that_knows_something(teacher):
    with pytest.raises(ConfigError, match="the teacher's accuracy is"):
        compression(0.5, 0.9, teacher)

from __future__ import annotations

import pytest

from sartor.policies.baselines import Baseline, Baselines


def test_the_baseline_by_hand():
    baseline = Baseline(0.9)
    assert baseline.update(4.0) == pytest.approx(4.0)
    assert baseline.update(1.0) == pytest.approx((0.9 * 0.1 * 4 + 0.1 * 1) / 0.19)
    other = Baseline(0.9)
    other.load_state_dict(baseline.state_dict())
    assert other.update(7.0) == baseline.update(7.0)


def test_baselines_are_unbiased_from_the_start_and_apart_for_each_level():
    averages = Baselines(0.9, 2)
    assert averages.update(0, 2.0) == pytest.approx(2.0)
    assert averages.update(1, 5.0) == pytest.approx(5.0)
    assert averages.update(0, 3.0) == pytest.approx((0.9 * 2.0 + 3.0) / 1.9)
    again = Baselines(0.9, 2)
    again.load_state_dict(averages.state_dict())
    assert again.update(1, 1.0) == averages.update(1, 1.0)

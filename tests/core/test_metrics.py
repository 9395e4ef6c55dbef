from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from sartor.core.errors import ConfigError
from sartor.core.metrics import Metric, Score, difference, wilson

ACCURACY, RMSE = Metric("accuracy", "max", "share", "proportion"), Metric("rmse", "min", "m")


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (81, 263), (950, 1000), (1, 2), (300, 300)])
def test_wilson_is_scipys_and_holds_the_share(right, n):
    expected = binomtest(right, n).proportion_ci(0.95, method="wilson")
    low, high = wilson(right / n, n)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert low <= right / n <= high


def test_wilson_refuses_nonsense():
    for share, examples in ((math.nan, 10), (1.1, 10), (0.5, 0)):
        with pytest.raises(ValueError, match="a share in"):
            wilson(share, examples)


def test_a_difference_is_newcombes_published_example():
    # Newcombe 1998, table II, comparison (a): 56/70 against 48/80 gives 0.0524 to 0.3339.
    found = difference(Score(0.8, *wilson(0.8, 70), 70), Score(0.6, *wilson(0.6, 80), 80), ACCURACY)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert found.examples == 70


@given(st.floats(-10, 10), st.floats(-10, 10), st.tuples(*[st.floats(0, 3)] * 4))
def test_less_of_an_error_is_a_gain_as_more_of_a_quality_is(a, b, room):
    new, old = Score(a, a - room[0], a + room[1]), Score(b, b - room[2], b + room[3])
    mirror = [Score(-s.value, -s.high, -s.low) for s in (new, old)]
    up, down = difference(new, old, ACCURACY), difference(*mirror, RMSE)
    assert (up.value, up.low, up.high) == pytest.approx((down.value, down.low, down.high))
    assert up.low <= up.value <= up.high
    assert ACCURACY.gain(a, b) == -RMSE.gain(a, b) == RMSE.gain(-a, -b)


def test_without_an_interval_there_is_none_of_the_difference():
    assert not difference(Score(1.0), Score(2.0, 1.5, 2.5), RMSE).bounded
    assert difference(Score(1.0), Score(2.0), RMSE).value == 1.0


def test_what_is_better():
    assert ACCURACY.best([0.1, 0.9, 0.5]) == 0.9
    assert RMSE.best([0.1, 0.9, 0.5]) == 0.1
    assert (ACCURACY.sign, RMSE.sign) == (1, -1)
    assert (RMSE.objective.metric, RMSE.objective.goal) == ("rmse", "min")


def test_values_are_read_with_their_unit():
    psnr = Metric("psnr", "max", "dB")
    assert [m.text(v) for m, v in ((ACCURACY, 0.9861), (psnr, 31.2412), (RMSE, 0.42153))] == [
        "98.6 %",
        "31.24 dB",
        "0.4215 m",
    ]
    assert [m.difference(v) for m, v in ((ACCURACY, 0.014), (psnr, -0.31), (RMSE, 0.0123))] == [
        "+1.4 points",
        "-0.31 dB",
        "+0.0123 m",
    ]
    assert ACCURACY.difference(-1e-9) == "+0.0 points", "no minus before a zero"
    assert ACCURACY.difference(0.01234, places=2) == "+1.23 points"
    assert [m.precise(v) for m, v in ((ACCURACY, 0.98614), (psnr, 31.24123))] == ["98.61 %", "31.2412 dB"]
    assert Metric("r2", "max").text(0.5) == "0.5"


@pytest.mark.parametrize("wrong", [{"goal": "up"}, {"goal": "max", "interval": "normal"}])
def test_goals_and_intervals_are_the_known_ones(wrong):
    with pytest.raises(ConfigError, match="a goal is one of max, min, an interval one of"):
        Metric("m", **wrong)

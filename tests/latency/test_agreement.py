from __future__ import annotations

import numpy as np
import pytest

from sartor.core.errors import DataError
from sartor.latency.agreement import Agreement

MEASURED = np.array([1.0, 2.0, 4.0])


def test_a_factor_is_found_and_taken_away() -> None:
    found = Agreement.of(MEASURED * 1.25, MEASURED)
    assert (found.networks, found.scale, found.bias, found.nrmse) == pytest.approx((3, 0.8, 0.25, _nrmse(0.25)))
    assert found.scaled_nrmse == pytest.approx(0)
    assert str(found) == f"NRMSE {_nrmse(0.25):.1%} on 3 networks, bias +25.0%; times 0.800 it is 0.0%"


def _nrmse(share: float) -> float:
    return float(np.sqrt(np.mean((share * MEASURED) ** 2)) / MEASURED.mean())


def test_the_scale_leaves_the_least_relative_error() -> None:
    predicted = np.array([1.3, 1.9, 5.0])
    best = Agreement.of(predicted, MEASURED).scale
    errors = [np.sum((s * predicted / MEASURED - 1) ** 2) for s in (best, 0.99 * best, 1.01 * best)]
    assert errors[0] == min(errors)


def test_errors() -> None:
    for pair in ((np.array([]), np.array([])), (np.array([0.0]), np.array([1.0]))):
        with pytest.raises(DataError, match="positive latencies"):
            Agreement.of(*pair)

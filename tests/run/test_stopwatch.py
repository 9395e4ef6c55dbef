from __future__ import annotations

import time

import pytest

from sartor.run.stopwatch import Stopwatch


def test_laps_add_up_to_the_time_on_the_wall() -> None:
    begin, watch = time.perf_counter(), Stopwatch()
    laps = []
    for _ in range(3):
        time.sleep(0.01)
        laps.append(watch.lap())
    assert min(laps) >= 0.01
    assert sum(laps) == pytest.approx(time.perf_counter() - begin, abs=0.05)


def test_waiting_is_no_time_of_ones_own() -> None:
    watch = Stopwatch(own=True)
    time.sleep(0.2)
    assert watch.lap() < 0.1
    total = sum(i * i for i in range(300_000))
    assert total > 0
    assert watch.lap() > 0.001

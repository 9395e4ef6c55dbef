from __future__ import annotations

import pytest

from sartor.core.errors import ConfigError
from sartor.run.journal import MemoryJournal
from sartor.run.pool import Pool
from sartor.run.work import Order
from sartor.run.workers.serial import Serial


def job(index):
    return {"index": index, "arch": [0, 1, 2], "fidelity": 1.0, "parent": None, "seed": index}


def test_jobs_are_done_here_in_their_order_and_errors_are_outcomes():
    log = MemoryJournal()
    with Pool(Serial(Order("run.toys:scores", {"acts": {"1": "fail"}}), count=3), log) as pool:
        pool.expect({i: job(i) for i in range(3)})
        found = [pool.take(i) for i in range(3)]
    assert [f.error for f in found] == [None, ("ValueError", "bad layer"), None]
    assert set(found[0].value) == {"accuracy"}
    assert [r["index"] for r in log.read() if r["kind"] == "ran"] == [0, 1, 2]


def test_a_mistake_in_the_set_up_is_raised():
    with Pool(Serial(Order("run.toys:scores", {"acts": {"0": "fatal"}})), MemoryJournal()) as pool:
        pool.expect({0: job(0)})
        with pytest.raises(ConfigError, match="mend me"):
            assert pool.take(0).text

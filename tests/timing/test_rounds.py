import gc
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from sartor.core.errors import ConfigError
from sartor.timing import rounds
from sartor.timing.rounds import Rounds, interleave


def test_every_round_runs_every_call_in_an_order_of_its_own() -> None:
    log: list[str] = []
    calls = {"a": [lambda: log.append("x"), lambda: log.append("y")], "b": lambda: log.append("z")}
    marks: list[int] = []
    found = interleave(
        calls, rounds=12, repeats=2, warmup=0.0, seed=7, on_round=lambda done, of: marks.append(len(log))
    )
    assert found.columns == ("a", "a", "b")
    assert np.shape(found.seconds) == (12, 3)
    assert found.repeats == (2, 2, 2)
    per_round = ["".join(log[a:b]) for a, b in zip([marks[0] - 9, *marks], marks, strict=False)]
    assert all(sorted(text) == sorted("xxxyyyzzz") for text in per_round)  # one untimed call and two timed ones each
    assert all("".join(c * 3 for c in dict.fromkeys(text)) == text for text in per_round)
    assert len(set(per_round)) > 3
    again: list[str] = []
    calls = {"a": [lambda: again.append("x"), lambda: again.append("y")], "b": lambda: again.append("z")}
    interleave(calls, rounds=12, repeats=2, warmup=0.0, seed=7)
    assert again[-108:] == log[-108:]  # the order comes from the seed


def test_samples_of_short_calls_repeat_more_and_garbage_waits() -> None:
    enabled: list[bool] = []
    found = interleave({"a": lambda: enabled.append(gc.isenabled())}, rounds=3, warmup=0.01)
    assert found.repeats == (200,)
    assert not any(enabled[-603:])
    assert gc.isenabled()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts interruptions of a thread")
def test_time_that_the_system_spends_on_something_else_does_not_count() -> None:
    def work() -> None:
        total = 0
        for i in range(1_000_000):
            total += i

    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    rivals = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]  # on the same core
    try:
        alone, wall, measured = [], [], []
        for _ in range(5):
            used, start = time.thread_time(), time.perf_counter()
            work()
            alone.append(time.thread_time() - used)
            wall.append(time.perf_counter() - start)
            measured.append(rounds._timed(work))
    finally:
        for rival in rivals:
            rival.kill()
            rival.wait()
        os.sched_setaffinity(0, cores)
    assert np.median(wall) > 1.7 * np.median(alone)  # the rivals were there
    assert np.median(measured) < 1.3 * np.median(alone)


def test_waiting_does_count() -> None:
    slept = interleave({"a": lambda: time.sleep(0.01)}, rounds=1, repeats=3, warmup=0.0).seconds[0][0]
    assert slept >= 0.01


def test_rounds_survive_json() -> None:
    found = Rounds(("a", "a", "b"), ((1e-3, 2e-3, 3e-3), (1.5e-3, 2e-3, 2.5e-3)), (3, 3, 200))
    assert Rounds.of(json.loads(json.dumps(found.as_dict()))) == found


def test_nothing_to_time_and_unknown_names_are_errors() -> None:
    for calls, count in (({}, 3), ({"a": []}, 3), ({"a": lambda: None}, 0)):
        with pytest.raises(ConfigError, match="nothing to time"):
            interleave(calls, rounds=count)
    with pytest.raises(ConfigError, match=r"no timings of \['c'\]; these rounds hold \['a', 'b'\]"):
        Rounds(("a", "b"), ((1.0, 2.0),), (3, 3)).log("c")

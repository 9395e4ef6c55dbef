from __future__ import annotations

import subprocess
import sys
import time

import pytest

from sartor.core.errors import StateError
from sartor.timing import quiet

OTHER = """
import sys, time
from sartor.timing import quiet
with getattr(quiet, sys.argv[1])():
    print("in", flush=True)
    sys.stdin.readline()
    print(time.monotonic(), flush=True)
"""


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    """Locks that nobody else on this machine holds."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


@pytest.fixture
def other():
    """Starts a process that holds a lock, once it has it, until it is told to let go."""
    started = []

    def start(how):
        process = subprocess.Popen([sys.executable, "-c", OTHER, how], stdin=-1, stdout=-1, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def has(process):
    return process.stdout.readline() == "in\n"


def let_go(process):
    out, _ = process.communicate("\n")
    return float(out)


@pytest.mark.parametrize(
    ("first", "second"), [("training", "measuring"), ("measuring", "training"), ("measuring",) * 2]
)
def test_who_comes_second_waits_for_the_first(other, first, second):
    holder = other(first)
    assert has(holder)
    waiting = other(second)
    time.sleep(1.5)  # it has started, and waits
    ended = let_go(holder)
    assert has(waiting)
    assert let_go(waiting) >= ended


def test_trainings_do_not_wait_for_each_other(other):
    one, two = other("training"), other("training")
    assert has(one)
    assert has(two)


def test_trainings_that_come_later_wait_for_a_measurement_that_waits(other):
    first = other("training")
    assert has(first)
    measuring = other("measuring")
    time.sleep(1.5)
    later = other("training")
    time.sleep(1.5)
    let_go(first)
    assert has(measuring)
    measured = let_go(measuring)
    assert has(later)
    assert let_go(later) >= measured


def test_the_death_of_who_measures_lets_others_go_on(other):
    holder = other("measuring")
    assert has(holder)
    holder.kill()
    with quiet.measuring():
        pass


def test_nothing_is_measured_inside_a_training():
    with quiet.training(), pytest.raises(StateError, match="may not time anything inside a trial"), quiet.measuring():
        pass
    with quiet.measuring():
        pass

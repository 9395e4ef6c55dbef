from __future__ import annotations

from collections import deque

import pytest

from sartor.core.errors import StateError
from sartor.run.journal import MemoryJournal
from sartor.run.pool import LOST, MAX_STARTS, Outcome, Pool
from sartor.run.work import Answer, Workers


class Scripted(Workers):
    """Answers in the order that it is told: numbers of jobs, the last that were started first if none is left."""

    def __init__(self, order=(), *, lose=(), late=(), count=2):
        super().__init__(None, count=count, trial_seconds=5.0)
        self.script, self.lose, self.late = deque(order), deque(lose), set(late)
        self.running, self.started, self.most = {}, [], 0

    def open(self):
        self.opened = True

    def start(self, key, job):
        self.running[key] = job
        self.started.append(key)
        self.most = max(self.most, len(self.running))

    def wait(self):
        key = next((k for k in self.script if k in self.running), None)
        if key is None:
            key = next(reversed(self.running))
        else:
            self.script.remove(key)
        job = self.running.pop(key)
        if self.lose and self.lose[0] == key:
            self.lose.popleft()
            return [Answer(key, lost="SIGKILL")]
        if key in self.late:
            return [Answer(key, late=True)]
        return [Answer(key, job["n"] * 10, ran={"seconds": 1.0})]

    def close(self):
        self.running = {}


def jobs(*numbers, offset=0):
    return {n: {"n": n + offset} for n in numbers}


def test_results_come_in_the_order_in_which_they_are_asked_for():
    workers = Scripted([2, 0, 1, 3], count=3)
    with Pool(workers, MemoryJournal()) as pool:
        pool.expect(jobs(0, 1, 2, 3))
        assert [pool.take(n).got() for n in range(4)] == [0, 10, 20, 30]
    assert workers.started == [0, 1, 2, 3]
    assert workers.most == 3


def test_what_has_come_early_is_not_done_again():
    log = MemoryJournal()
    with Pool(Scripted([2, 1, 0], count=3), log) as pool:
        pool.expect(jobs(0, 1, 2, 3))
        pool.take(0)
    workers = Scripted()
    with Pool(workers, log) as pool:
        pool.expect(jobs(1, 2, 3))
        assert [pool.take(n).got() for n in (1, 2, 3)] == [10, 20, 30]
    assert workers.started == [3]


def test_what_is_known_of_other_jobs_of_these_numbers_is_forgotten():
    log = MemoryJournal()
    with Pool(Scripted(lose=[0, 0, 0], count=2), log) as pool:
        pool.expect(jobs(0, 1))
        assert (pool.take(0).text, pool.take(1).got()) == (LOST, 10)
    with Pool(Scripted(lose=[0, 0]), log) as pool:
        pool.expect(jobs(0, 1, offset=5))
        assert [pool.take(n).got() for n in (0, 1)] == [50, 60]


def test_the_third_death_in_a_job_fails_it_earlier_sessions_included():
    log = MemoryJournal()
    with Pool(Scripted([1, 0, 0], lose=[1, 0], count=2), log) as pool:
        pool.expect(jobs(0, 1))
        assert pool.take(0).got() == 0
    with Pool(Scripted(lose=[1, 1]), log) as pool:
        pool.expect(jobs(1))
        assert pool.take(1) == Outcome(error=("", LOST))
    assert len([r for r in log.read() if r["kind"] == "death"]) == 1 + MAX_STARTS
    records = [r for r in log.read() if r["kind"] != "ran"]
    workers = Scripted()
    cut = MemoryJournal()
    cut.extend(records)  # killed between the third death and its consequence
    with Pool(workers, cut) as pool:
        pool.expect(jobs(1))
        assert pool.take(1).text == LOST
    assert workers.started == []


def test_a_late_job_is_said_to_be_so():
    with Pool(Scripted(late=[0]), MemoryJournal()) as pool:
        pool.expect(jobs(0))
        assert pool.take(0).text == "TrialTimeoutError: over its time limit of 5 s (trial_seconds)"


def test_workers_are_opened_with_the_first_job_only():
    workers = Scripted()
    with Pool(workers, MemoryJournal()) as pool:
        pool.expect({})
    assert not hasattr(workers, "opened")


@pytest.mark.parametrize(
    ("error", "text"),
    [(None, None), (("ValueError", "bad"), "ValueError: bad"), (("", LOST), LOST)],
)
def test_the_text_of_an_outcome_is_that_of_the_trial(error, text):
    assert Outcome(error=error).text == text


def test_a_mistake_in_the_set_up_is_no_text():
    with pytest.raises(StateError, match="full"):
        assert Outcome(error=("StateError", "full")).text


@pytest.mark.parametrize("record", [{"kind": "ran", "index": 0}, {"kind": "ran", "index": 0, "job": 3, "error": None}])
def test_a_damaged_record_is_named(record):
    log = MemoryJournal()
    log.append(record)
    with pytest.raises(StateError, match=r"no whole 'ran' .*; restore workers\.jsonl"):
        Pool(Scripted(), log)

from __future__ import annotations

import os
import time
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from sartor.core.errors import ConfigError, StateError
from sartor.run import worker as workers
from sartor.run.work import Order
from sartor.run.worker import Worker, named_error
from sartor.timing import quiet


def job(index):
    return {"index": index, "arch": [0, 1, 2], "fidelity": 1.0, "parent": None, "seed": index}


def answer(worker):
    while True:
        found = worker.await_answer()
        if found is not None:
            return found


@pytest.fixture
def made():
    workers = []

    def make(order, **settings):
        workers.append(Worker(order, threads=1, **settings))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


def dies_at_once(arguments):
    os._exit(3)


def gpus(arguments):
    return lambda job: [os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["OMP_NUM_THREADS"], str(Path.cwd())]


def test_one_process_does_job_after_job_and_a_new_one_follows_a_death(made):
    worker = made(Order("run.toys:scores", {"acts": {"1": "die"}}))
    found = []
    for index in (0, 1, 2, 3):
        worker.start(index, job(index))
        found.append(answer(worker))
    assert [a.key for a in found] == [0, 1, 2, 3]
    assert [a.lost for a in found] == ["", "SIGKILL", "", ""]
    assert found[2].ran["process"] == found[3].ran["process"] != found[0].ran["process"]


def test_a_job_that_is_late_is_stopped_from_outside(made):
    worker = made(Order("run.toys:scores", {"acts": {"0": "hang"}}), trial_seconds=0.3)
    worker.start(0, job(0))
    assert answer(worker).late
    worker.start(1, job(1))
    assert answer(worker).value


def test_a_process_has_the_folder_the_gpus_and_the_threads_that_it_is_given(made):
    worker = made(Order("run.test_worker:gpus"), gpus=[2, 3])
    worker.start(0, job(0))
    assert answer(worker).value == ["2,3", "1", str(Path.cwd())]


def test_processes_that_end_before_they_are_ready_are_not_started_for_ever(made):
    worker = made(Order("run.test_worker:dies_at_once"))
    with pytest.raises(StateError, match=r"a worker ended 3 times while it started \(status 3\)"):
        answer(worker)


def test_another_version_in_a_worker_is_refused(made, monkeypatch):
    monkeypatch.setattr(workers, "versions", lambda: {"sartor": "9.9", "torch": "1.0"})
    with pytest.raises(ConfigError, match=r"has sartor .*, torch .*, this process has sartor 9\.9, torch 1\.0"):
        answer(made(Order("run.toys:scores")))


def test_a_run_folder_that_a_worker_does_not_see_is_refused(made, tmp_path):
    with pytest.raises(StateError, match="name a run folder that all workers see"):
        answer(made(Order("run.toys:scores", sees=(str(tmp_path / "not"), "x"))))


def test_errors_of_another_process_are_raised_as_what_they_are():
    assert type(named_error("ConfigError", "no")) is ConfigError
    assert str(named_error("KeyError", "'a'")) == "a worker failed: KeyError: 'a'"
    assert str(named_error("Exception", "x")) == "a worker failed: Exception: x"


def test_who_waits_until_nobody_measures_is_not_late(made, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    worker = made(Order("run.toys:scores"), trial_seconds=0.3)
    with quiet.measuring():
        worker.start(0, job(0))
        ends = time.monotonic() + 1.5
        while time.monotonic() < ends:
            if wait([worker.handle], 0.1):
                assert worker.read() is None
            assert worker.left is None
    assert answer(worker).value

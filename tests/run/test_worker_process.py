from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from run.toys import scores
from sartor.run.work import usable
from sartor.run.worker_process import done


def job(index):
    return {"index": index, "arch": [0, 1, 2], "fidelity": 1.0, "parent": None, "seed": index}


def test_an_answer_says_what_came_out_and_where_it_ran():
    answer = done(scores({}), job(0), [], 0)
    assert set(answer) == {"value", "ran"}
    assert set(answer["value"]) == {"accuracy"}
    assert answer["ran"]["process"] == os.getpid()
    assert answer["ran"]["seconds"] >= 0.0


def test_an_error_is_an_answer():
    answer = done(scores({"acts": {"0": "fail"}}), job(0), [], 0)
    assert answer["error"] == ["ValueError", "bad layer"]


def test_cores_are_those_that_were_asked_for():
    cores = usable()
    try:
        assert done(scores({"where": True}), job(0), cores[:1], 1)["value"]["cores"] == cores[:1]
    finally:
        os.sched_setaffinity(0, cores)


def test_a_process_ends_in_the_middle_of_a_job_when_its_driver_is_gone(tmp_path):
    program = """
import os, sys
from sartor.run.worker import Worker
from sartor.run.work import Order
worker = Worker(Order("run.toys:scores", {"seconds": 600, "marks": sys.argv[1]}), threads=1)
worker.start(0, {"index": 0, "arch": [0, 1, 2], "fidelity": 1.0, "parent": None, "seed": 0})
while not os.listdir(sys.argv[1]):
    worker.await_answer() if not worker._ready else None
print(worker.process.pid, flush=True)
os._exit(9)
"""
    path = os.pathsep.join(sys.path)
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    process, ends = int(done.stdout), time.monotonic() + 30
    stat = Path(f"/proc/{process}/stat")
    while stat.exists() and time.monotonic() < ends:
        if stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return  # it has ended, and nobody has looked yet
        time.sleep(0.05)
    assert time.monotonic() < ends

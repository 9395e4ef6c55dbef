"""A worker's process, seen from the one that has started it: two pipes, what it is told and what it answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, final

from sartor.core import errors
from sartor.core.errors import SartorError, StateError
from sartor.run.work import Answer, Job, Order, versions

START = """
import json, os, sys
told = json.loads(sys.stdin.readline())
os.environ.update(told["environment"])
os.chdir(told["folder"])
sys.path[:] = told["path"]
from sartor.run.worker_process import main
main()
"""
"""It finds the modules that this process finds, and has its threads and GPUs before anything reads their number."""

TRIES = 3
"""Processes in a row that may end before they are ready."""


@dataclass
class Task:
    """A job that a worker is at.

    Attributes:
        key: Of the job.
        job: What it is.
        cores: Where it runs; none: anywhere.
        since: When it began, on the monotonic clock; None as long as the process is not ready, or waits until nobody
            measures on its machine.
    """

    key: int
    job: Job
    cores: Sequence[int]
    since: float | None = None


@final
class Worker:
    """Does one job at a time in a process of its own, which is started anew whenever it dies.

    Args:
        order: What it does.
        threads: Of a job.
        gpus: Numbers of the GPUs that it sees; None leaves it as it is.
        memory_gb: That it may take; None for no limit.
        trial_seconds: Time of a job; None for no limit.
    """

    def __init__(
        self,
        order: Order,
        *,
        threads: int,
        gpus: Sequence[int] | None = None,
        memory_gb: float | None = None,
        trial_seconds: float | None = None,
    ) -> None:
        self._told = {
            "order": order.as_dict(),
            "threads": threads,
            "memory_gb": memory_gb,
            "versions": versions(),
        }
        self._environment = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        if gpus is not None:
            self._environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
        self._seconds = trial_seconds
        self._failed = 0
        self._text, self._ready, self._closed = b"", False, False
        self.task: Task | None = None
        self._begin()

    def start(self, key: int, job: Job, cores: Sequence[int] = ()) -> None:
        """Begin a job; the worker must be free."""
        assert self.task is None, "a worker does one job at a time"
        self.task = Task(key, job, list(cores))
        self._send()

    @property
    def handle(self) -> int:
        """What to wait for: readable when there is something to `read`."""
        return self._answers

    @property
    def left(self) -> float | None:
        """Seconds until the job under way is late; None if it never is."""
        if self._seconds is None or self.task is None or self.task.since is None:
            return None
        return max(0.0, self.task.since + self._seconds - time.monotonic())

    def read(self) -> Answer | None:
        """What has become of the job, if it has ended; call it when `handle` is readable or no time is `left`.

        Raises:
            SartorError: The process cannot make the work, or ends before it can.
        """
        if self.left == 0.0 and not wait([self._answers], 0):
            return self._stopped()
        data = os.read(self._answers, 1 << 20)
        if not data:
            return self._died()
        self._text += data
        *lines, self._text = self._text.split(b"\n")
        answers = [self._take(json.loads(line)) for line in lines]
        return next((a for a in answers if a is not None), None)

    def await_answer(self) -> Answer | None:
        """`read`, once there is something to read; None if the process has only begun anew, or is ready."""
        wait([self._answers], self.left)
        return self.read()

    def close(self) -> None:
        """End the process, whatever it does; once is enough."""
        if self._closed:
            return
        self._closed = True
        if self.process.returncode is None:  # else its number may be another's by now
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # and whatever it has started itself
        self.process.wait()
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        os.close(self._answers)
        self._noise.close()

    def _begin(self) -> None:
        self._noise = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - until close
        self._answers, theirs = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", START],
            stdin=subprocess.PIPE,
            stdout=theirs,
            stderr=self._noise,
            start_new_session=True,  # Ctrl-C is for the driver, which then ends its workers
        )
        os.close(theirs)
        self._text, self._ready, self._closed = b"", False, False
        where = {"environment": self._environment, "folder": os.getcwd(), "path": sys.path}  # noqa: PTH109 - for JSON
        self._write(where)
        self._write(self._told)

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it is dead: `read` finds out
            self.process.stdin.write(json.dumps(line).encode() + b"\n")
            self.process.stdin.flush()

    def _send(self) -> None:
        assert self.task is not None
        self.task.since = None
        self._write({"job": self.task.job, "cores": self.task.cores})

    def _take(self, said: Mapping[str, Any]) -> Answer | None:
        if "refused" in said:
            raise named_error(*said["refused"])
        if "ready" in said:
            self._ready, self._failed = True, 0
            return None
        if "began" in said:
            assert self.task is not None
            self.task.since = time.monotonic()
            return None
        return self._ended(said)

    def _ended(self, said: Mapping[str, Any]) -> Answer:
        assert self.task is not None
        task, self.task = self.task, None
        return Answer.of(task.key, said)

    def _stopped(self) -> Answer:
        ran = {"process": self.process.pid, "seconds": self._seconds}
        self.close()
        self._begin()
        return self._ended({"late": True, "ran": ran})

    def _died(self) -> Answer | None:
        """It has ended by itself: one that was at a job has lost it, one that was starting starts again."""
        ready, why = self._ready, self._why()
        self.close()
        self._failed += not ready
        if self._failed >= TRIES:
            raise StateError(f"a worker ended {TRIES} times while it started ({why}); mend that and run again")
        self._begin()
        if self.task is None:
            return None
        if ready:
            return self._ended({"lost": why})
        self._send()
        return None

    def _why(self) -> str:
        try:
            status = self.process.wait(10)
        except subprocess.TimeoutExpired:
            return "it has closed its output"
        self._noise.seek(0)
        last = ([line.strip() for line in self._noise if line.strip()] or [""])[-1]
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        return f"{how}: {last}" if last else how


def named_error(kind: str, message: str) -> SartorError:
    """The error that another process has raised; one of another kind is a StateError that names it."""
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, SartorError):
        return known(message)
    return StateError(f"a worker failed: {f'{kind}: ' if kind else ''}{message}")

"""What a worker's process does: make the work once, then do job after job, until its driver is gone.

It reads lines of JSON from its standard input and answers with lines of JSON; whatever else prints goes to its standard
error. A thread reads, so that the death of the driver ends a process in the middle of a job, too.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import IO, Any, NoReturn

from sartor.run.work import Order, Work, check_sees, check_versions, versions
from sartor.timing import quiet

Tell = Callable[[Mapping[str, Any]], None]


def main() -> NoReturn:
    """Make the work, do the jobs."""
    answers = _answers_only()

    def tell(answer: Mapping[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    told = json.loads(sys.stdin.readline())
    lines: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    work = _made(told, tell)
    tell({"ready": {"host": platform.node(), "process": os.getpid()}})
    while True:
        asked = json.loads(lines.get())
        with quiet.training():
            tell({"began": True})  # who waits for a measurement to end is not late
            answer = done(work, asked["job"], asked["cores"], told["threads"])
        tell(answer)


def done(work: Work, job: Mapping[str, Any], cores: list[int], threads: int) -> dict[str, Any]:
    """The answer to one job."""
    if cores:
        os.sched_setaffinity(0, cores)
    ran: dict[str, Any] = {"host": platform.node(), "process": os.getpid(), "cores": cores, "threads": threads}
    begin = time.perf_counter()
    try:
        answer = {"value": work(job)}
    except Exception as error:  # noqa: BLE001 - one bad job must not end the worker; who asked decides
        answer = {"error": [type(error).__name__, str(error)]}
    ran["seconds"] = time.perf_counter() - begin
    return {**answer, "ran": ran}


def _answers_only() -> IO[str]:
    """The standard output, which from now on is nobody else's."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(kept, "w", encoding="utf-8")


def _read(lines: SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)  # the driver is gone: nobody waits for what is under way


def _made(told: Mapping[str, Any], tell: Tell) -> Work:
    """The work; what keeps this process from it is told as it is."""
    try:
        order = Order.of(told["order"])
        check_versions(told["versions"], versions(), platform.node())
        check_sees(order.sees)
        _limit(told["threads"], told["memory_gb"])
        return order.work()
    except Exception as error:  # noqa: BLE001 - every worker would fail the same way: who asked says so and stops
        tell({"refused": [type(error).__name__, str(error)]})
        os._exit(0)


def _limit(threads: int, memory_gb: float | None) -> None:
    """Threads of torch, and the memory that a job may ask the system for."""
    import torch  # noqa: PLC0415 - after the cores and the threads of OpenMP are set

    torch.set_num_threads(threads)
    if memory_gb is not None:
        size = int(memory_gb * 1e9)
        resource.setrlimit(resource.RLIMIT_DATA, (size, resource.getrlimit(resource.RLIMIT_DATA)[1]))

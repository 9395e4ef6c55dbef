"""A Ray cluster: one task per trial, on this machine or on several (needs `ray`).

Plain tasks, no actors, no retries by Ray: who dies is counted here. Inside a task the trial runs in a process of its
own (sartor.run.worker), which lasts as long as Ray keeps its worker: so a time limit, a crash and memory are the same
as with `processes`, on every node. Nothing is pickled but the name of a function and two lines of JSON. Files (the run
folder, weights that are handed on, data) are read and written where the driver reads and writes them: all nodes must
see the same folders.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, final

from sartor.core.errors import ConfigError, MissingExtraError, SartorError, StateError
from sartor.run.work import Answer, Job, Order, Workers, check_machine, cores_of, this_machine
from sartor.run.worker import Worker, named_error

__all__ = ["Ray"]

PATIENCE = 20.0
"""Seconds in which an address must answer."""


LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""At 0 a cluster is for one machine: Ray listens on its loopback only, on any system. Read when Ray is imported."""
BETWEEN = 2.0
"""Seconds between two looks whether the cluster is still there."""


@final
class Ray(Workers):
    """Tasks of a Ray cluster; without an address one is started on this machine alone, and ended with the search.

    Args:
        order: What they do; None only checks the settings.
        count: How many trials at a time, on all nodes together.
        cpus: Cores, and threads, of a trial.
        gpus: GPUs of a trial.
        memory_gb: Gigabytes of memory that a trial may take; None for no limit.
        trial_seconds: Time of a trial; None for no limit.
        address: HOST:PORT of the head node, as `ray start --head` prints it.

    Raises:
        ConfigError: Nobody answers at the address, or no node has what a trial asks for.
        MissingExtraError: Ray is not installed.
    """

    def __init__(
        self,
        order: Order | None,
        *,
        count: int = 1,
        cpus: int = 1,
        gpus: int = 0,
        memory_gb: float | None = None,
        trial_seconds: float | None = None,
        address: str = "",
    ) -> None:
        self.address = address
        super().__init__(order, count=count, cpus=cpus, gpus=gpus, memory_gb=memory_gb, trial_seconds=trial_seconds)

    def check(self) -> None:
        """Refuse what cannot work: no Ray, a silent address, too little on this machine if that is all."""
        if find_spec("ray") is None:
            raise MissingExtraError("workers ray need Ray: pip install 'sartor[ray]'")
        if self.address:
            _check_answers(self.address)
        else:
            check_machine(self.cpus, self.gpus, self.memory_gb, this_machine())

    def open(self) -> None:
        """Start a cluster, or join one; refuse trials that no node can hold."""
        if not self.address:
            os.environ[LOOPBACK] = "0"
        ray: Any = import_module("ray")  # an extra, whose types change between versions
        own: dict[str, Any] = {} if self.address else {"num_cpus": self.cpus * self.count}
        try:
            ray.init(
                address=self.address or "local",
                include_dashboard=None if self.address else False,
                log_to_driver=False,
                logging_level="ERROR",
                **own,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"Ray at {self.address or 'this machine'} cannot be used: {error}; start it with ray start --head"
            ) from error
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        most = {
            "cpus": max(node.get("CPU", 0.0) for node in nodes),
            "gpus": max(node.get("GPU", 0.0) for node in nodes),
            "memory_gb": max(node.get("memory", 0.0) for node in nodes) / 1e9,
        }
        try:
            check_machine(self.cpus, self.gpus, self.memory_gb, most)
        except SartorError:
            ray.shutdown()
            raise
        memory = {} if self.memory_gb is None else {"memory": self.memory_gb * 1e9}
        self._task = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0, **memory)(one)
        self._ray = ray
        self._under_way: dict[Any, tuple[int, int]] = {}
        """Task -> job and slot."""

    def start(self, key: int, job: Job) -> None:
        """Hand it to the cluster."""
        slot = min(set(range(self.count)) - {slot for _, slot in self._under_way.values()})
        told = {
            "order": self.order.as_dict(),
            "threads": self.cpus,
            "memory_gb": self.memory_gb,
            "trial_seconds": self.trial_seconds,
        }
        # Which cores are free is known on this machine only.
        cores = None if self.address else cores_of(slot, self.cpus)
        task = self._task.remote(json.dumps(told, sort_keys=True), json.dumps({"job": job, "cores": cores or []}))
        self._under_way[task] = key, slot

    def wait(self) -> list[Answer]:
        """What has ended."""
        ended: list[Any] = []
        while not ended:
            ended, _ = self._ray.wait(list(self._under_way), num_returns=1, timeout=BETWEEN)
            if not ended and not any(node["Alive"] for node in self._ray.nodes()):
                raise StateError("the Ray cluster is gone: no node of it is alive; run again to go on")
        return [self._answer(task) for task in ended]

    def close(self) -> None:
        """Stop the tasks, and leave the cluster; one that was started here ends."""
        for task in self._under_way:
            with suppress(self._ray.exceptions.RayError):
                self._ray.cancel(task, force=True)
        self._ray.shutdown()

    def _answer(self, task: Any) -> Answer:
        key, _ = self._under_way.pop(task)
        try:
            said = json.loads(self._ray.get(task))
        except self._ray.exceptions.LocalRayletDiedError as error:  # no fault of the trial, and no other can run
            raise StateError("the Ray node of this machine has died; run again to go on") from error
        except (self._ray.exceptions.RayError, OSError) as error:
            return Answer(key, lost=_first(error))
        if "refused" in said:
            raise named_error(*said["refused"])
        return Answer.of(key, said)


def one(told: str, asked: str) -> str:
    """A task: one job, in a process beside Ray's own worker.

    Args:
        told: The order and the limits, as JSON.
        asked: The job and its cores, as JSON.

    Returns:
        The answer as JSON; `refused` with kind and message of the error if no process can do the work here.
    """
    worker, wanted = _worker(told), json.loads(asked)
    try:
        worker.start(0, wanted["job"], wanted["cores"])
        while True:
            answer = worker.await_answer()
            if answer is not None:
                return json.dumps(asdict(answer))
    except SartorError as error:
        _worker.cache_clear()
        worker.close()
        return json.dumps({"refused": [type(error).__name__, str(error)]})


@lru_cache(maxsize=1)
def _worker(told: str) -> Worker:
    """The process of this worker of Ray: made once, as Ray uses a worker for many tasks."""
    settings: Mapping[str, Any] = json.loads(told)
    return Worker(
        Order.of(settings["order"]),
        threads=settings["threads"],
        memory_gb=settings["memory_gb"],
        trial_seconds=settings["trial_seconds"],
    )


def _check_answers(address: str) -> None:
    """Raise ConfigError if nobody answers."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise ConfigError(f"workers.address must be HOST:PORT, as ray start --head prints it; got {address!r}")
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"nobody answers at workers.address = {address!r} ({error}); start the cluster there: ray start --head"
        ) from error
    # `ray.init` would wait for minutes for an answer of somebody else's server.
    look = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--skip-version-check", "--address", address]
    try:
        found = subprocess.run(look, check=False, capture_output=True, timeout=PATIENCE)
        there = found.returncode == 0 or b"AuthenticationError" in found.stderr  # `ray.init` knows the token
    except subprocess.TimeoutExpired:
        there = False
    if not there:
        raise ConfigError(
            f"no Ray at workers.address = {address!r}, although something answers there; start it: ray start --head"
        )


def _first(error: BaseException) -> str:
    """Kind and first line of an error of Ray, whose messages are long."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"

"""Processes of this machine, each spawned once, which talk over pipes; one that dies is replaced."""

from __future__ import annotations

from multiprocessing.connection import wait
from typing import final

from sartor.core.errors import ConfigError
from sartor.run.work import Answer, Job, Workers, check_machine, cores_of, this_machine
from sartor.run.worker import Worker

__all__ = ["Processes"]


@final
class Processes(Workers):
    """Workers without any further package.

    Cores are given out one after another; where there are more workers than cores, they share them. GPUs are not
    shared.

    Raises:
        ConfigError: A trial asks for more than this machine has, or all together for more GPUs.
    """

    def check(self) -> None:
        """Refuse trials that this machine cannot hold."""
        there = this_machine()
        check_machine(self.cpus, self.gpus, self.memory_gb, there)
        if self.count * self.gpus > there["gpus"]:
            raise ConfigError(
                f"{self.count} workers with workers.gpus = {self.gpus} need {self.count * self.gpus} GPUs, and there "
                f"are {there['gpus']:g}; lower workers.count"
            )

    def open(self) -> None:
        """Start all processes; they make the work side by side."""
        self._workers: list[Worker] = []
        for slot in range(self.count):
            gpus = range(slot * self.gpus, (slot + 1) * self.gpus) if self.gpus else None
            self._workers.append(
                Worker(
                    self.order,
                    threads=self.cpus,
                    gpus=gpus,
                    memory_gb=self.memory_gb,
                    trial_seconds=self.trial_seconds,
                )
            )

    def start(self, key: int, job: Job) -> None:
        """Give it to a free process."""
        slot = next(i for i, worker in enumerate(self._workers) if worker.task is None)
        self._workers[slot].start(key, job, cores_of(slot, self.cpus))

    def wait(self) -> list[Answer]:
        """What has ended."""
        found: list[Answer] = []
        while not found:
            limits = [worker.left for worker in self._workers if worker.left is not None]
            readable = wait([worker.handle for worker in self._workers], min(limits, default=None))
            for worker in self._workers:
                if worker.handle in readable or worker.left == 0.0:
                    answer = worker.read()
                    found += [] if answer is None else [answer]
        return found

    def close(self) -> None:
        """End all processes."""
        while self._workers:
            self._workers.pop().close()

"""This process itself, one job after another."""

from __future__ import annotations

from collections import deque
from typing import final

from sartor.run.work import Answer, Job, Work, Workers
from sartor.run.worker_process import done

__all__ = ["Serial"]


@final
class Serial(Workers):
    """No other process: jobs are done while somebody waits for them, on whatever cores and threads there are.

    A search without workers is the same. Settings that only other processes can obey have no effect.
    """

    elsewhere = False

    def open(self) -> None:
        """Make the work."""
        self._work: Work = self.order.work()
        self._jobs: deque[tuple[int, Job]] = deque()

    def start(self, key: int, job: Job) -> None:
        """Put it on the list."""
        self._jobs.append((key, job))

    def wait(self) -> list[Answer]:
        """Do the first job on the list."""
        key, job = self._jobs.popleft()
        return [Answer.of(key, done(self._work, job, [], 0))]

    def close(self) -> None:
        """Nothing is under way."""

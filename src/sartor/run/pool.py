"""A pool: jobs with numbers go to workers, and come back when they are asked for, in whatever order they ended.

A journal of its own keeps what is known before it is asked for: a job that was started, one that has ended (with who
did it, on which cores, how long), one that took its worker down. Whoever is killed goes on from there: only what was
under way is done again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, final

from sartor.core import errors
from sartor.core.errors import CapabilityError, ConfigError, DataError, LeakError, MissingExtraError, StateError
from sartor.run.journal import Journal
from sartor.run.work import Answer, Job, Workers
from sartor.run.worker import named_error

FATAL = (CapabilityError, ConfigError, DataError, LeakError, MissingExtraError, StateError)
"""Mistakes in the set-up and full disks: every other trial would fail the same way, so the search stops."""

MAX_STARTS = 3
"""A trial that took its whole process down this often (out of memory, say) is recorded as failed."""

LOST = f"the process died {MAX_STARTS} times in this trial (out of memory?)"


def over_time(seconds: float) -> str:
    """What is said of a trial that was stopped at its limit."""
    return f"over its time limit of {seconds:g} s (trial_seconds)"


@dataclass(frozen=True)
class Outcome:
    """What a job has come to.

    Attributes:
        value: What the work gave.
        error: Kind and message of what went wrong; a kind of "" has none. None if nothing did.
    """

    value: Any = None
    error: tuple[str, str] | None = None

    def got(self) -> Any:
        """The value.

        Raises:
            SartorError: There is none.
        """
        if self.error is not None:
            raise named_error(*self.error)
        return self.value

    @property
    def text(self) -> str | None:
        """The error as a trial keeps it.

        Raises:
            SartorError: It is a mistake in the set-up.
        """
        if self.error is None:
            return None
        kind, message = self.error
        if _is_fatal(kind):
            raise named_error(kind, message)
        return f"{kind}: {message}" if kind else message


@final
class Pool:
    """Hands jobs to workers in the order of their numbers.

    Args:
        workers: Who does them; opened when the first job comes.
        log: What outlives this process.
    """

    def __init__(self, workers: Workers, log: Journal) -> None:
        self.workers, self._log = workers, log
        self._jobs: dict[int, Job] = {}
        """Expected, and not taken yet."""
        self._queue: deque[int] = deque()
        self._running: set[int] = set()
        self._outcomes: dict[int, Outcome] = {}
        self._known: dict[int, tuple[Job, Outcome]] = {}
        """Ended in an earlier session."""
        self._deaths: dict[int, tuple[Job, int]] = {}
        """How often a job has taken its worker down."""
        self._open = False
        self._recall()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; what is under way is lost."""
        if self._open:
            self.workers.close()
        self._open = False

    @property
    def expected(self) -> Mapping[int, Job]:
        """Jobs that nobody has taken yet."""
        return self._jobs

    def expect(self, jobs: Mapping[int, Job]) -> None:
        """These will be asked for: start them as soon as a worker is free."""
        for number, job in jobs.items():
            self._jobs[number] = job
            known = self._known.pop(number, None)
            if known is not None and known[0] == dict(job):
                self._outcomes[number] = known[1]
            elif self._died(number, job) >= MAX_STARTS:
                self._outcomes[number] = Outcome(error=("", LOST))
            else:
                self._queue.append(number)
        self._feed()

    def take(self, number: int) -> Outcome:
        """What a job has come to, once it has."""
        while number not in self._outcomes:
            for answer in self.workers.wait():
                self._note(answer)
            self._feed()
        del self._jobs[number]
        self._deaths.pop(number, None)
        return self._outcomes.pop(number)

    def _feed(self) -> None:
        if self._queue and not self._open:
            self.workers.open()
            self._open = True
        while self._queue and len(self._running) < max(1, self.workers.count):
            number = self._queue.popleft()
            self._log.append({"kind": "start", "index": number}, soon=True)
            self.workers.start(number, self._jobs[number])
            self._running.add(number)

    def _note(self, answer: Answer) -> None:
        number, job = answer.key, self._jobs[answer.key]
        self._running.remove(number)
        if answer.lost:
            self._count(number, job)
            self._log.append({"kind": "death", "index": number, "job": job, "why": answer.lost})
            if self._died(number, job) < MAX_STARTS:
                self._queue.appendleft(number)
                return
        outcome = self._outcome(answer)
        self._outcomes[number] = outcome
        if outcome.error is None or not _is_fatal(outcome.error[0]):  # a mistake that is mended is no outcome
            record = {"index": number, "job": job, "value": outcome.value, "error": outcome.error}
            self._log.append({"kind": "ran", **record, "by": answer.ran}, soon=True)

    def _outcome(self, answer: Answer) -> Outcome:
        if answer.lost:
            return Outcome(error=("", LOST))
        if answer.late:
            return Outcome(error=("TrialTimeoutError", over_time(self.workers.trial_seconds or 0.0)))
        return Outcome(answer.value, answer.error)

    def _died(self, number: int, job: Job) -> int:
        known, times = self._deaths.get(number, (job, 0))
        return times if known == dict(job) else 0  # after a rewind, other jobs have these numbers

    def _count(self, number: int, job: Job) -> None:
        self._deaths[number] = dict(job), self._died(number, job) + 1

    def _recall(self) -> None:
        for record in self._log.read():
            try:
                self._take(record)
            except (KeyError, TypeError, IndexError, ValueError) as error:
                raise StateError(
                    f"a record of the workers is no whole {record['kind']!r} ({type(error).__name__}: {error}); "
                    "restore workers.jsonl, or remove it to do what was under way again"
                ) from error

    def _take(self, record: Mapping[str, Any]) -> None:
        """One record of an earlier session."""
        if record["kind"] == "ran":
            error = record["error"]
            self._known[record["index"]] = dict(record["job"]), Outcome(record["value"], error and (error[0], error[1]))
        if record["kind"] == "death":
            self._count(record["index"], record["job"])


def _is_fatal(kind: str) -> bool:
    return getattr(errors, kind, None) in FATAL

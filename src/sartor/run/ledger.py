"""The ledger: which stage took how long, trained and measured how many networks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sartor.run.journal import Journal
from sartor.run.result import Spent, Stage

EVERY = 1.0
"""Seconds between two bookings of small units of work."""


class Ledger:
    """Books all time of a process to one stage or another; earlier sessions of the same journal count too.

    Time goes to the innermost open stage, and to `other` outside of any, so that the stages add up to the wall time by
    construction; `wall_seconds` is taken from the clock of each session, as a check. After a kill, what was not yet
    booked (at most the time since the last `book`, and the networks counted since) is lost.
    """

    def __init__(self, journal: Journal, *, age: float = 0.0) -> None:
        """`age`: seconds that this session had already run before (a command's imports: `process_age()`)."""
        self.journal = journal
        self._stages: list[str] = []
        self._last = time.monotonic()
        self._begin = self._last
        self._age_before = age
        self._booked_trained = self._booked_measured = 0
        journal.append({"kind": "time", "stage": "start", "seconds": self._age_before, "trained": 0, "measured": 0})

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Everything inside is booked to `name`."""
        self.book()
        self._stages.append(name)
        try:
            yield
        finally:
            self.book()
            self._stages.pop()

    def count(self, *, trained: int = 0, measured: int = 0) -> None:
        """Networks trained or measured in the stage that is open."""
        self._booked_trained += trained
        self._booked_measured += measured

    def tick(self, *_: object) -> None:
        """Book if the last booking is `EVERY` seconds ago: call it after each unit of work, however small."""
        if time.monotonic() - self._last >= EVERY:
            self.book()

    def book(self) -> None:
        """Write the time since the last booking to the journal."""
        self.journal.append({"kind": "time", **self.due()}, soon=True)

    def due(self) -> dict[str, Any]:
        """What is to be booked since the last booking; whoever takes it writes it, as `spent` of a record."""
        now = time.monotonic()
        record = {"seconds": now - self._last, "trained": self._booked_trained, "measured": self._booked_measured}
        self._last, self._booked_trained, self._booked_measured = now, 0, 0
        return {"stage": self._stages[-1] if self._stages else "other", **record}

    def summary(self) -> Spent:
        """The stages in order of appearance, their sum, and the wall time of all sessions."""
        self.book()
        stages: dict[str, dict[str, Any]] = {}
        for record in self._booked():
            entry = stages.setdefault(record["stage"], {"seconds": 0.0, "trained": 0, "measured": 0})
            for key in entry:
                entry[key] += record[key]
        rows = tuple(Stage(n, e["seconds"], e["trained"], e["measured"]) for n, e in stages.items())
        return Spent(rows, sum(r.seconds for r in rows), self._wall())

    def _wall(self) -> float:
        """Wall time of earlier sessions as booked, and of this one by the clock, to its last booking."""
        earlier, current = 0.0, 0.0
        for record in self._booked():
            if record["stage"] == "start":
                earlier, current = earlier + current, 0.0
            current += record["seconds"]
        return earlier + self._age_before + self._last - self._begin

    def _booked(self) -> Iterator[dict[str, Any]]:
        for record in self.journal.read():
            if record["kind"] == "time" or "spent" in record:
                yield record.get("spent", record)


def process_age() -> float:
    """Seconds since the process started (imports included); 0 where the system does not tell."""
    stat, uptime = Path("/proc/self/stat"), Path("/proc/uptime")
    if not stat.exists() or not uptime.exists():
        return 0.0
    ticks = int(stat.read_text().rpartition(")")[2].split()[19])
    return max(0.0, float(uptime.read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK"))

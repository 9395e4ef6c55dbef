"""Journals: append-only JSON Lines in a file, and the same in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from sartor.core.errors import StateError
from sartor.core.records import Trial


class Journal(Protocol):
    """An append-only list of JSON objects, each with a `kind`."""

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; it is safe once this returns."""

    def read(self) -> Iterator[dict[str, Any]]:
        """All records, oldest first."""


class MemoryJournal:
    """A journal that ends with the process."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def append(self, record: Mapping[str, Any]) -> None:
        """Keep a copy that went through JSON, so that both journals return the same types."""
        self.records.append(json.loads(json.dumps(record)))

    def read(self) -> Iterator[dict[str, Any]]:
        """All records, oldest first."""
        return iter(list(self.records))


class FileJournal:
    """One JSON object per line; a torn last line (power loss, kill) is cut off on opening."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            _cut_torn_line(path)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write, flush and sync one line.

        Raises:
            StateError: The disk is full or not writable; the line is taken back, so that the journal stays whole.
        """
        line = (json.dumps(record) + "\n").encode()
        with self.path.open("ab") as file:
            size = file.tell()
            try:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                os.truncate(self.path, size)
                raise StateError(f"cannot write {self.path}: {error}; free some space and run again") from error

    def read(self) -> Iterator[dict[str, Any]]:
        """All records, oldest first.

        Raises:
            StateError: A line in the middle is not JSON (somebody edited the file).
        """
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                yield self._parse(line, number)

    def _parse(self, line: str, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise StateError(f"{self.path}:{number} is not JSON ({error}); restore the line or remove it") from error
        if not isinstance(record, dict) or "kind" not in record:
            raise StateError(f"{self.path}:{number} is not a record of sartor; restore the line or remove it")
        return record


def _cut_torn_line(path: Path) -> None:
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)


def read_trials(journal: Journal) -> list[Trial]:
    """The trials that stand, rewinds applied."""
    trials: list[Trial] = []
    for record in journal.read():
        if record["kind"] == "rewind":
            del trials[record["to"] :]
        elif record["kind"] == "trial":
            trials.append(_trial(record))
    return trials


def read_logs(journal: Journal) -> list[dict[str, Any]]:
    """The logged scalars, each with the `step` it belongs to."""
    return [{k: v for k, v in r.items() if k != "kind"} for r in journal.read() if r["kind"] == "log"]


def _trial(record: dict[str, Any]) -> Trial:
    fields = {k: v for k, v in record.items() if k != "kind"}
    return Trial(**{**fields, "arch": tuple(fields["arch"])})

"""Journals: append-only JSON Lines in a file, and the same in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

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
    """One JSON object per line; a torn last line (power loss, kill) is not read, and cut off by the next append.

    Reading changes nothing, so that a report may look at a journal that another process writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole = False

    def append(self, record: Mapping[str, Any]) -> None:
        """Write, flush and sync one line.

        Raises:
            StateError: The disk is full or not writable; the line is taken back, so that the journal stays whole.
        """
        line = (json.dumps(record) + "\n").encode()
        try:
            new = not self.path.exists()
            # Unbuffered: a buffer that could not be flushed is written again, behind our back, when the file is closed.
            with self.path.open("ab", buffering=0) as file:
                size = file.tell() if self._whole else _cut_torn_line(self.path)
                self._whole = True
                try:
                    _write_all(file, line)
                except OSError:
                    os.truncate(self.path, size)
                    raise
            if new:
                _sync_folder(self.path.parent)
        except OSError as error:
            raise StateError(f"cannot write {self.path}: {error}; free some space and run again") from error

    def read(self) -> Iterator[dict[str, Any]]:
        """All records, oldest first.

        Raises:
            StateError: A line in the middle is not JSON (somebody edited the file).
        """
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield self._parse(line, number)

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except ValueError as error:
            raise StateError(f"{self.path}:{number} is not JSON ({error}); restore the line or remove it") from error
        if not isinstance(record, dict) or "kind" not in record:
            raise StateError(f"{self.path}:{number} is not a record of sartor; restore the line or remove it")
        return record


def _write_all(file: IO[bytes], data: bytes) -> None:
    while data:
        data = data[file.write(data) :]  # a disk that is nearly full takes a part without an error
    os.fsync(file.fileno())


def _cut_torn_line(path: Path) -> int:
    """Cut what follows the last newline; the size that is left."""
    data = path.read_bytes()
    size = data.rfind(b"\n") + 1
    if size < len(data):
        os.truncate(path, size)
    return size


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
    """The logged scalars, each with the `step` it belongs to, rewinds applied."""
    logs: list[dict[str, Any]] = []
    for record in journal.read():
        if record["kind"] == "rewind_logs":
            logs = [log for log in logs if log["step"] <= record["to"]]
        elif record["kind"] == "log":
            logs.append({k: v for k, v in record.items() if k != "kind"})
    return logs


def _trial(record: dict[str, Any]) -> Trial:
    fields = {k: v for k, v in record.items() if k != "kind"}
    return Trial(**{**fields, "arch": tuple(fields["arch"])})

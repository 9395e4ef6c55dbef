"""Journals: append-only JSON Lines in a file, and the same in memory.

A record is given to the system before `append` returns: no end of the process loses it. A record that must survive a
power cut, too, is synced at once; one that says `soon` is synced with the first record that comes `LAG` seconds or more
after the last sync. So a power cut costs at most what was done in that time, and it costs the newest records first.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from sartor.core.errors import StateError
from sartor.core.records import Trial

LAG = 0.5
"""Seconds of work that a power cut may cost; nothing else costs any."""


class Journal(Protocol):
    """An append-only list of JSON objects, each with a `kind`."""

    def append(self, record: Mapping[str, Any], *, soon: bool = False) -> None:
        """Write one record; it survives the process once this returns, and a power cut at once or `soon`."""

    def extend(self, records: Iterable[Mapping[str, Any]], *, soon: bool = False) -> None:
        """Write several records at once: a process that is killed has written all of them, or none."""

    def sync(self) -> None:
        """Let all records survive a power cut from now on."""

    def read(self) -> Iterator[dict[str, Any]]:
        """All records, oldest first."""


class MemoryJournal:
    """A journal that ends with the process."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def append(self, record: Mapping[str, Any], *, soon: bool = False) -> None:  # noqa: ARG002 - nothing lasts here
        """Keep a copy that went through JSON, so that both journals return the same types."""
        self.records.append(json.loads(json.dumps(record)))

    def extend(self, records: Iterable[Mapping[str, Any]], *, soon: bool = False) -> None:
        """Keep copies."""
        for record in records:
            self.append(record, soon=soon)

    def sync(self) -> None:
        """Nothing lasts here."""

    def read(self) -> Iterator[dict[str, Any]]:
        """All records, oldest first."""
        return iter(list(self.records))


class FileJournal:
    """One JSON object per line; a torn last line (power loss, kill) is not read, and cut off by the next append.

    Reading changes nothing, so that a report may look at a journal that another process writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole, self._waiting, self._synced = False, False, float("-inf")

    def append(self, record: Mapping[str, Any], *, soon: bool = False) -> None:
        """Write one line; see above for what it then survives.

        Raises:
            StateError: The disk is full or not writable; the line is taken back, so that the journal stays whole.
        """
        self.extend([record], soon=soon)

    def extend(self, records: Iterable[Mapping[str, Any]], *, soon: bool = False) -> None:
        """Write lines in one go.

        Raises:
            StateError: As `append`.
        """
        lines = "".join(json.dumps(record) + "\n" for record in records).encode()
        later = soon and time.monotonic() - self._synced < LAG
        try:
            new = not self.path.exists()
            # Unbuffered: a buffer that could not be flushed is written again, behind our back, when the file is closed.
            with self.path.open("ab", buffering=0) as file:
                size = file.tell() if self._whole else _cut_torn_line(self.path)
                self._whole = True
                try:
                    _write_all(file, lines)
                    self._waiting = True
                    if not later:
                        self._sync(file)
                except OSError:
                    self._whole = False  # what stands there is looked at anew, should this fail, too
                    os.truncate(self.path, size)
                    raise
            if new:
                _sync_folder(self.path.parent)
        except OSError as error:
            raise StateError(f"cannot write {self.path}: {error}; free some space and run again") from error

    def sync(self) -> None:
        """Let all records of this object survive a power cut from now on.

        Raises:
            StateError: The disk cannot.
        """
        if not self._waiting:
            return
        try:
            with self.path.open("ab", buffering=0) as file:
                self._sync(file)
        except OSError as error:
            raise StateError(f"cannot write {self.path}: {error}; free some space and run again") from error

    def _sync(self, file: IO[bytes]) -> None:
        os.fsync(file.fileno())
        self._waiting, self._synced = False, time.monotonic()

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
            record = json.loads(line.decode())  # of bytes it would look for other encodings
        except (ValueError, RecursionError) as error:
            raise StateError(f"{self.path}:{number} is not JSON ({error}); restore the line or remove it") from error
        if not isinstance(record, dict) or "kind" not in record:
            raise StateError(f"{self.path}:{number} is not a record of sartor; restore the line or remove it")
        return record


def _write_all(file: IO[bytes], data: bytes) -> None:
    while data:
        data = data[file.write(data) :]  # a disk that is nearly full takes a part without an error


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


@dataclass
class Contents:
    """What stands in the journal of a search, rewinds applied.

    Attributes:
        trials: In order.
        logs: The logged scalars, each with the `step` it belongs to.
        starts: Trial index -> how often the process died in it.
    """

    trials: list[Trial] = field(default_factory=list)
    logs: list[dict[str, Any]] = field(default_factory=list)
    starts: dict[int, int] = field(default_factory=dict)
    _digests: dict[int, bytes] = field(default_factory=dict)

    def digest(self, count: int) -> bytes:
        """Of the first `count` trials."""
        if count not in self._digests:
            self._digests[count] = chained(b"", self.trials[:count])
        return self._digests[count]

    def take(self, record: Mapping[str, Any]) -> None:
        """One more record."""
        match record["kind"]:
            case "start":
                self.starts[record["index"]] = self.starts.get(record["index"], 0) + 1
            case "interrupt":
                self.starts[record["index"]] -= 1
            case "trial":
                self.starts.pop(record["index"], None)
                self.trials.append(_trial(record))
            case "rewind":  # other architectures have these indices now
                self.starts.clear()
                del self.trials[record["to"] :]
            case "log":
                self.logs.append({k: v for k, v in record.items() if k != "kind"})
            case "rewind_logs":
                self.logs = [log for log in self.logs if log["step"] <= record["to"]]


def read_contents(journal: Journal) -> Contents:
    """All that a search reads, in one pass.

    Raises:
        StateError: A record lacks what its kind has.
    """
    contents = Contents()
    for number, record in enumerate(journal.read(), 1):
        try:
            contents.take(record)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise StateError(
                f"record {number} of the journal is no whole {record['kind']!r} ({reason}); restore the journal"
            ) from error
    return contents


def read_trials(journal: Journal) -> list[Trial]:
    """The trials that stand, rewinds applied."""
    return read_contents(journal).trials


def read_logs(journal: Journal) -> list[dict[str, Any]]:
    """The logged scalars, each with the `step` it belongs to, rewinds applied."""
    return read_contents(journal).logs


def chained(digest: bytes, trials: Iterable[Trial]) -> bytes:
    """A digest of trials: that of those before them, with theirs in it. A checkpoint knows its trials by it."""
    for trial in trials:
        line = repr((trial.arch, trial.fidelity, dict(trial.metrics), trial.error, trial.parent))
        digest = hashlib.sha256(digest + line.encode("utf-8", "surrogatepass")).digest()
    return digest


def _trial(record: Mapping[str, Any]) -> Trial:
    fields = {k: v for k, v in record.items() if k != "kind"}
    return Trial(**{**fields, "arch": tuple(fields["arch"])})

"""A run folder: one config, one journal, one owner at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import socket
import time
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

import tomli_w

from sartor.core import files, foreign
from sartor.core.errors import StateError
from sartor.run.journal import FileJournal

MOVABLE = ("limits", "workers")
"""Tables that may change between sessions: a larger limit goes on, and who does the work changes no result."""
CHECKPOINT = ".checkpoint.safetensors"
"""How the artifacts end that go once the result of their stage is in the journal."""


class RunFolder:
    """`config.toml`, `journal.jsonl`, `artifacts/`, `result.json`, locked while it is open.

    Args:
        path: The folder.
        config: Of the run.
        own: False for a look into the folder of a process that has sent for this one: it is not locked, and not to be
            written.

    Raises:
        StateError: The folder belongs to another config, another process has it open, or it is no run folder.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], *, own: bool = True) -> None:
        self.path = path
        self._ended: dict[str, Any] | None = None
        self._whole: set[str] = set()
        self._since: dict[str, dict[str, object]] = {}
        self._mark = mark(config)
        self.journal = FileJournal(path / "journal.jsonl")
        self._lock: IO[str] | None = None
        if not own:
            return
        _refuse_strangers(path)
        self._lock = _lock(path)
        try:
            self._adopt(config)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process have the folder."""
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_UN)  # a forked worker may still have the file open
            self._lock.close()
            self._lock = None

    @property
    def artifacts(self) -> Path:
        """Where files go that outlive a stage."""
        (self.path / "artifacts").mkdir(exist_ok=True)
        return self.path / "artifacts"

    @property
    def finished(self) -> bool:
        """Whether the result is there."""
        return (self.path / "result.json").exists()

    def stage_result(self, name: str) -> Any | None:
        """What the stage called `name` gave, or None if it has not ended yet.

        Raises:
            StateError: The journal, or a file that the stage has written, is another run's or missing.
        """
        if self._ended is None:  # once: a journal may be long, and nobody else writes it
            self._ended = {r["name"]: r for r in self.journal.read() if r["kind"] == "stage"}
        record = self._ended.get(name)
        if record is None:
            return None
        if record.get("run", self._mark) != self._mark:  # a run of before has written none
            raise StateError(f"{self.journal.path} is of another run; restore it, or run again in a new folder")
        for path, digest in record.get("files", {}).items():
            self._check(path, digest)
        return record["result"]

    def begin_stage(self, name: str) -> None:
        """What a stage writes from here on is to be the same whenever its result is asked for."""
        self._since[name] = self.stamps()

    def end_stage(self, name: str, result: Any, spent: Mapping[str, Any] | None = None) -> None:
        """Journal the result of a stage: it is never done again.

        Args:
            name: Of the stage.
            result: Plain values.
            spent: What of its cost is not booked yet (`Ledger.due`).
        """
        since = self._since.pop(name, None)
        written = [] if since is None else [p for p, stamp in self.stamps().items() if since.get(p) != stamp]
        digests = {path: files.sha256(self.path / path) for path in written if not path.endswith(CHECKPOINT)}
        self._whole.update(digests)
        record = {"kind": "stage", "name": name, "result": result, "run": self._mark, "files": digests}
        self.journal.append(record | ({"spent": spent} if spent else {}))
        self._ended = None

    def stamps(self) -> dict[str, object]:
        """What tells whether an artifact has been written anew, by path."""
        found: dict[str, object] = {}
        for path in sorted(self.artifacts.rglob("*")):
            if path.is_file():
                now = path.stat()
                found[str(path.relative_to(self.path))] = now.st_mtime_ns, now.st_size, now.st_ino
        return found

    def _check(self, name: str, digest: str) -> None:
        """Whether a file is as a stage has left it; it is looked at once.

        Raises:
            StateError: It is not.
        """
        if name in self._whole:
            return
        path = self.path / name
        now = files.sha256(path) if path.is_file() else None
        if now != digest:
            how = "is missing" if now is None else "is not what the run in this folder has written"
            raise StateError(f"{path} {how}; restore it, or run again in a new folder")
        self._whole.add(name)

    def _adopt(self, config: Mapping[str, Any]) -> None:
        path = self.path / "config.toml"
        if not path.exists():
            write_config(path, config)
            return
        old = read_config(path)
        changed = [k for k in changed_keys(old, plain(config)) if k.split(".")[0] not in MOVABLE]
        if changed:
            raise StateError(
                f"{self.path} belongs to a run with another config (changed: {', '.join(changed)}); "
                "restore these settings or name a new folder"
            )
        write_config(path, config)


def mark(config: Mapping[str, Any]) -> str:
    """What tells a run from others: a digest of its config without what may change."""
    kept = {key: value for key, value in plain(config).items() if key not in MOVABLE}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Write a config as TOML, atomically."""
    files.atomically(path, lambda part: part.write_text(tomli_w.dumps(plain(config)), encoding="utf-8"))


def read_config(path: Path) -> dict[str, Any]:
    """The config of a run folder.

    Raises:
        StateError: There is none: it is no run folder; or it is damaged.
    """
    if not path.exists():
        raise StateError(f"{path} does not exist: {path.parent} is no run folder; name that of a sartor fit")
    try:
        return tomllib.loads(foreign.text(path, StateError))
    except RecursionError as error:
        raise StateError(f"{path} is nested too deep to be read; restore it or name a new folder") from error
    except tomllib.TOMLDecodeError as error:
        raise StateError(f"{path} is not TOML ({error}); restore it or name a new folder") from error


def plain(value: Any) -> Any:
    """The config as TOML keeps it: tuples as lists, paths as strings, no entry that is None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value if isinstance(value, bool | int | float | str) else str(value)


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the settings in which two configs differ."""
    changed: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if all(isinstance(t, Mapping) or t is None for t in (a, b)):
            changed += changed_keys(a or {}, b or {}, f"{prefix}{key}.")
        elif a != b:
            changed.append(f"{prefix}{key}")
    return changed


def read_json(path: Path) -> Any:
    """A JSON file of a run folder.

    Raises:
        StateError: It is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StateError(f"{path} does not exist; finish the run first: sartor fit with the same folder") from error
    except (ValueError, RecursionError) as error:
        raise StateError(f"{path} is not JSON ({error}); remove it and run the same command again") from error


def write_json(path: Path, data: Any) -> None:
    """Write JSON, atomically; what is not finite becomes null, since JSON has no word for it."""
    text = json_text(data)
    files.atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def json_text(data: Any) -> str:
    """What `write_json` writes."""
    return json.dumps(_finite(data), indent=1, allow_nan=False) + "\n"


def _finite(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {k: _finite(v) for k, v in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(v) for v in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _refuse_strangers(path: Path) -> None:
    """A folder that is not empty and no run folder is left as it is."""
    if not path.is_dir():
        return
    own = {".lock", "config.toml", "config.toml.part"}  # the first two of a session that has just begun
    names = {p.name for p in path.iterdir()}
    if "config.toml" not in names and names - own:
        raise StateError(f"{path} is not empty and not a run folder (it has {min(names - own)}); name a new one")


def _lock(path: Path) -> IO[str]:
    try:
        path.mkdir(parents=True, exist_ok=True)
        handle = (path / ".lock").open("a+")
    except OSError as error:
        raise StateError(f"cannot write to {path}: {error}; name another folder") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system drops it when the process dies
    except BlockingIOError as error:
        handle.seek(0)
        who = handle.read().strip() or "it has not said who it is"
        handle.close()
        raise StateError(f"another process works in {path} ({who}); wait for it, or name another folder") from error
    except OSError as error:
        handle.close()
        raise StateError(f"cannot lock {path}: {error}; name a folder on a disk that knows locks") from error
    try:
        _say_who(handle)
    except BaseException:
        handle.close()
        raise
    return handle


def _say_who(handle: IO[str]) -> None:
    """Who comes second is told; a full disk may keep it from it."""
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    with suppress(OSError):
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}, since {since}\n")
        handle.flush()

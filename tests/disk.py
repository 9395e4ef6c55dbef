"""A disk that fails: the n-th write, sync, rename, truncation, removal or opening of a
file, in one of several ways.

It stands between sartor and the system: what Python does to files below one folder goes through it, and so does what
safetensors writes there. Nothing else does, and nothing is ever synced for real, so that a test costs no waiting.
"""

from __future__ import annotations

import errno
import io
import os
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import safetensors
import safetensors.torch

Kind = Literal["open", "write", "sync", "rename", "truncate", "remove", "folder"]
KINDS: tuple[Kind, ...] = ("open", "write", "sync", "rename", "truncate", "remove", "folder")
Manner = Literal["once", "full", "readonly", "killed", "cut"]
MANNERS: tuple[Manner, ...] = ("once", "full", "readonly", "killed", "cut")
"""Once: this call fails, as a bad sector. Full: this write and all later ones fail, after half of it. Read-only: this
call and all later ones that change anything fail. Killed: half of this write is done, and nothing ever after, as when
the process dies; what was written without a sync is kept, as it is by the system. Cut: the power goes, and with it all
that was not synced.
"""
DEADLY = ("killed", "cut")


class Killed(BaseException):
    """The process is dead; whatever it still tries to do to the disk raises this, and does nothing."""


class FaultyDisk:
    """A context in which files below `root` fail.

    Args:
        root: The folder.
        kind: Which calls count.
        at: Which of them fails, from 1 on; 0: none does, they are counted.
        manner: How.
        then: Calls that fail once this one has: those that clean up, say.
    """

    def __init__(
        self, root: Path, kind: Kind = "write", at: int = 0, manner: Manner = "once", then: tuple[Kind, ...] = ()
    ) -> None:
        self.root, self.kind, self.at, self.manner, self.then = os.path.realpath(root), kind, at, manner, then
        self.counts: Counter[str] = Counter()
        self.struck = False
        """Whether the call that was to fail has come."""
        self.dead = False
        """Whether the process has been killed."""
        self.safe: dict[str, int] = {}
        """Of files that were written, the size that would survive a power cut."""
        self._patches = ExitStack()

    def __enter__(self) -> FaultyDisk:
        for module, name in ((os, "fsync"), (os, "replace"), (os, "truncate"), (os, "unlink"), (os, "mkdir")):
            self._patch(module, name, getattr(self, f"_{name}"))
        self._patch(os, "open", self._os_open)
        self._patch(io, "open", self._open)
        self._patch(safetensors.torch, "serialize_file", self._serialize_file)
        return self

    def __exit__(self, *_: object) -> None:
        self._patches.close()

    def _patch(self, module: Any, name: str, function: Any) -> None:
        real = getattr(module, name)
        setattr(self, f"_real_{name if module is not io else 'io_open'}", real)
        self._patches.enter_context(mock.patch.object(module, name, function))

    def _mine(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.path.realpath(path).startswith(self.root)

    def strikes(self, kind: Kind) -> bool:
        """Whether this call fails."""
        self.counts[kind] += 1
        now = kind == self.kind and self.counts[kind] == self.at
        if now:
            self.struck = True
            return True
        if not self.struck or self.manner == "once":
            return self.struck and kind in self.then
        return self.manner != "full" or kind in ("write", "folder")

    def fail(self) -> None:
        if self.manner in DEADLY:
            if self.manner == "cut" and not self.dead:
                self._lose()
            self.dead = True
            raise Killed
        number = {"once": errno.EIO, "full": errno.ENOSPC, "readonly": errno.EROFS}[self.manner]
        raise OSError(number, os.strerror(number))

    def _lose(self) -> None:
        for path, size in self.safe.items():
            if os.path.lexists(path):
                self._real_truncate(path, size)

    def guard(self, kind: Kind) -> None:
        if self.strikes(kind):
            self.fail()

    def _fsync(self, handle: int) -> None:
        path = os.path.realpath(f"/proc/self/fd/{handle}")
        if self._mine(path):
            self.guard("sync")
            if path in self.safe:
                self.safe[path] = os.fstat(handle).st_size

    def _replace(self, source: Any, target: Any, **options: Any) -> None:
        if self._mine(target):
            self.guard("rename")
            self.safe[os.path.realpath(target)] = self.safe.pop(os.path.realpath(source), 0)
        self._real_replace(source, target, **options)

    def _truncate(self, path: Any, length: int) -> None:
        if self._mine(path):
            self.guard("truncate")
        self._real_truncate(path, length)

    def _unlink(self, path: Any, **options: Any) -> None:
        if self._mine(path) and os.path.lexists(path):
            self.guard("remove")
        self._real_unlink(path, **options)

    def _mkdir(self, path: Any, *arguments: Any, **options: Any) -> None:
        if self._mine(path) and not os.path.lexists(path):
            self.guard("folder")
        self._real_mkdir(path, *arguments, **options)

    def _os_open(self, path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        return self._real_open(path, flags, *arguments, **options)

    def _open(self, file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        writing = self._mine(file) and any(c in mode for c in "wax+")
        if writing:
            self.guard("open")
            path = os.path.realpath(file)
            before = Path(path).stat().st_size if os.path.lexists(path) and "w" not in mode else 0
            self.safe[path] = self.safe.get(path, before) if before else 0
        found = self._real_io_open(file, mode, *arguments, **options)
        return Torn(found, self) if writing else found

    def _serialize_file(self, tensors: Any, filename: Any, metadata: Any = None) -> None:
        if not self._mine(filename):
            self._real_serialize_file(tensors, filename, metadata)
            return
        with self._open(filename, "wb") as file:
            file.write(safetensors.serialize(tensors, metadata))


class Torn:
    """A file whose writes may fail in the middle."""

    def __init__(self, file: Any, disk: FaultyDisk) -> None:
        self._file, self._disk = file, disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Torn:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Any:
        return iter(self._file)

    def write(self, data: Any) -> int:
        if not self._disk.strikes("write"):
            return int(self._file.write(data))
        if self._disk.manner in ("full", *DEADLY) and not self._disk.dead:
            self._file.write(data[: len(data) // 2])
            self._file.flush()
        self._disk.fail()
        raise AssertionError("a disk that fails raises")

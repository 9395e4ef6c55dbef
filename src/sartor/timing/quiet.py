"""Nothing is timed while a worker trains on the same machine: locks between the processes of a machine.

Whoever trains for somebody else holds a shared lock, whoever times an exclusive one. A second file is the gate: who
wants to time closes it first, so that trainings which begin one after another cannot keep it waiting for ever. The
system drops both when a process dies.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from sartor.core.errors import StateError

_log = logging.getLogger(__name__)
_TRAINING: ContextVar[bool] = ContextVar("training", default=False)


@contextmanager
def training() -> Iterator[None]:
    """The block trains: it waits until nobody measures on this machine."""
    with _held("gate", fcntl.LOCK_SH) as gate, _held("meter", fcntl.LOCK_SH):
        fcntl.flock(gate, fcntl.LOCK_UN)
        token = _TRAINING.set(True)
        try:
            yield
        finally:
            _TRAINING.reset(token)


@contextmanager
def measuring() -> Iterator[None]:
    """The block times something: it waits until no worker trains on this machine, and keeps others from beginning.

    Raises:
        StateError: The block is part of a training that a worker does.
    """
    if _TRAINING.get():
        raise StateError(
            "a worker may not time anything inside a trial, as others train beside it; run without workers"
        )
    with _held("gate", fcntl.LOCK_EX), _held("meter", fcntl.LOCK_EX):
        yield


@contextmanager
def _held(name: str, how: int) -> Iterator[int]:
    """A lock of this machine, as the number of its open file."""
    path = Path(tempfile.gettempdir()) / f"sartor-{name}.lock"
    try:
        # Not created where it is there: in a folder for all, the system refuses that for files of other users.
        handle = os.open(path, os.O_RDONLY if path.exists() else os.O_RDONLY | os.O_CREAT, 0o644)
    except OSError as error:
        raise StateError(f"cannot open {path}: {error}; name a folder for temporary files in TMPDIR") from error
    try:
        try:
            fcntl.flock(handle, how | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("waiting: on this machine, %s", "something is timed" if how == fcntl.LOCK_SH else "workers train")
            fcntl.flock(handle, how)
        yield handle
    finally:
        os.close(handle)

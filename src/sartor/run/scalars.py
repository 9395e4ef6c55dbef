"""Scalars to TensorBoard, when it is installed; otherwise nothing."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self


class Scalars:
    """Writes `folder/tensorboard/`, opened at the first scalar."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._events: Any = None
        self._missing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._events is not None:
            with suppress(OSError):
                self._events.close()

    def write(self, step: int, logs: Sequence[dict[str, float]]) -> None:
        """One point per scalar at `step`; a disk that does not take them ends the points, not the search."""
        try:
            for log in logs:
                for name, value in log.items():
                    if name != "step" and self._open(step):
                        self._events.add(step, name, value)
        except OSError:  # the journal has them, too
            self._missing = True

    def _open(self, step: int) -> bool:
        if self._events is None and not self._missing:
            try:
                self._events = _Events(self._folder, step)
            except ImportError:  # an extra
                self._missing = True
        return not self._missing


class _Events:
    """An event file that the calling thread writes.

    TensorBoard's own writers have a thread for it, which ends with a traceback when the disk is full.
    """

    def __init__(self, folder: Path, step: int) -> None:
        # slow to import: only when there is something to write
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # noqa: PLC0415
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415
        from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415

        self._event, self._summary = Event, Summary
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._file = RecordWriter((folder / name).open("ab", buffering=0))
        self._put(file_version="brain.Event:2")
        # of steps that a kill has undone, the earlier points are not shown
        self._put(step=step, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, name: str, value: float) -> None:
        self._put(step=step, summary=self._summary(value=[self._summary.Value(tag=name, simple_value=value)]))

    def close(self) -> None:
        self._file.close()

    def _put(self, **content: Any) -> None:
        self._file.write(self._event(wall_time=time.time(), **content).SerializeToString())

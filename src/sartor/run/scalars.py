"""Scalars to TensorBoard, when it is installed; otherwise nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Scalars:
    """Writes `folder/tensorboard/`, opened at the first scalar."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._writer: Any = None
        self._missing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()

    def write(self, step: int, logs: Sequence[dict[str, float]]) -> None:
        """One point per scalar at `step`; a disk that does not take them ends the points, not the search."""
        try:
            for log in logs:
                for name, value in log.items():
                    if name != "step" and self._open(step):
                        self._writer.add_scalar(name, value, step)
        except OSError:  # the journal has them, too
            self._missing = True

    def _open(self, step: int) -> bool:
        if self._writer is None and not self._missing:
            try:  # an extra, and slow to import: only when there is something to write
                from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415
            except ImportError:
                self._missing = True
            else:
                # of steps that a kill has undone, the earlier points are not shown
                self._writer = SummaryWriter(str(self._folder), purge_step=step)
        return not self._missing

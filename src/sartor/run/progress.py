"""What a user sees while a run works: bars with the time left, log lines without a terminal, or nothing."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from typing import final

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text


class Display(ABC):
    """Where a run tells what it does."""

    @abstractmethod
    def stage(self, title: str) -> None:
        """A new part of the job begins."""

    @abstractmethod
    def bar(self, done: float, total: float, label: str = "") -> None:
        """How much of the current work is done; `done == total` ends the bar."""

    @abstractmethod
    def say(self, message: RenderableType) -> None:
        """A line (or a table) to keep; a string is shown as it is, brackets included."""

    def close(self) -> None:  # noqa: B027 - most displays hold nothing
        """Leave the terminal as it was."""


@final
class Silent(Display):
    """Shows nothing (calls from Python, tests)."""

    def stage(self, title: str) -> None:
        """Nothing."""

    def bar(self, done: float, total: float, label: str = "") -> None:
        """Nothing."""

    def say(self, message: RenderableType) -> None:
        """Nothing."""


@final
class Bars(Display):
    """Progress bars with the time left, for a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._label = ""

    def stage(self, title: str) -> None:
        """A headline."""
        self.close()
        self._console.print(Text(title, style="bold"))

    def bar(self, done: float, total: float, label: str = "") -> None:
        """One bar at a time; another label starts another bar."""
        if self._progress is None or label != self._label:
            self.close()
            self._progress, self._label = self._open(), label
            self._task = self._progress.add_task(label or "working", total=total)
        assert self._task is not None
        self._progress.update(self._task, completed=done, total=total)
        if done >= total:
            self.close()

    def say(self, message: RenderableType) -> None:
        """Print below what stands."""
        self.close()
        self._console.print(message, highlight=False, markup=False)

    def close(self) -> None:
        """End the bar that is shown."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _open(self) -> Progress:
        columns = (
            TextColumn("  {task.description:<34}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
        )
        progress = Progress(*columns, console=self._console, transient=True)
        progress.start()
        return progress


@final
class Lines(Display):
    """Log lines, for a file or a pipe: at most one every few seconds for a bar."""

    def __init__(self, console: Console, every: float = 10.0) -> None:
        self._console, self._every = console, every
        self._label, self._since, self._last = "", 0.0, time.monotonic()
        self._first = self._done = 0.0

    def stage(self, title: str) -> None:
        """A headline."""
        self._console.print(title, highlight=False, markup=False)

    def bar(self, done: float, total: float, label: str = "") -> None:
        """A line with the time left, now and then."""
        now = time.monotonic()
        if label != self._label or done < self._done:  # other work, or the same from the start
            self._label, self._since, self._first = label, now, done
        self._done = done
        fresh = done - self._first  # a resumed run starts at what earlier sessions have done
        if now - self._last >= self._every and fresh > 0 and done < total:
            left = (now - self._since) * (total - done) / fresh
            self._console.print(f"  {label}: {done:g} of {total:g}, {left:.0f} s left", highlight=False, markup=False)
            self._last = now

    def say(self, message: RenderableType) -> None:
        """Print it."""
        self._console.print(message, highlight=False, markup=False)


def display(*, quiet: bool = False) -> Display:
    """The display that fits: nothing, bars on a terminal, lines elsewhere; on stderr, so that stdout stays data."""
    if quiet:
        return Silent()
    console = Console(stderr=True)
    if console.is_terminal and sys.stderr.isatty():
        return Bars(console)
    return Lines(Console(stderr=True, width=160))


def console() -> Console:
    """Where results go: stdout, as wide as the terminal; wide enough for a table in a file or a pipe."""
    return Console() if sys.stdout.isatty() else Console(width=120)

"""Durations: what lies between two looks at the clock."""

from __future__ import annotations

import time
from typing import final


@final
class Stopwatch:
    """Runs from when it is made.

    Args:
        own: Count the processor time of this process, not the time on the wall.
    """

    def __init__(self, *, own: bool = False) -> None:
        self._now = time.process_time if own else time.perf_counter
        self._since = self._now()

    def lap(self) -> float:
        """Seconds since it was made, or since the last lap."""
        now = self._now()
        seconds, self._since = now - self._since, now
        return seconds

"""Interleaved rounds: who is timed when, and what counts as the time of a call.

A latency in milliseconds on a machine that others use is worth little: it moves with the load. So every network is
timed in the same rounds as a reference, and its latency is a ratio to it (sartor.timing.estimate). Load also falls
harder on long calls than on short ones, which fit between two interruptions; so the time that the system spends on
something else is taken out.
"""

from __future__ import annotations

import gc
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter, perf_counter_ns, thread_time_ns
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sartor.core.errors import ConfigError
from sartor.core.rng import numpy_rng

if sys.platform == "linux":
    import resource

Call: TypeAlias = Callable[[], object]
Calls: TypeAlias = Mapping[str, Call | Sequence[Call]]
Floats: TypeAlias = NDArray[np.float64]
OnRound: TypeAlias = Callable[[int, int], None]
"""Told (rounds done, rounds at most)."""

WARMUP = 0.5
"""Upper bound in seconds on warming up each call."""
SAMPLE_SECONDS = 0.005
"""A sample repeats its call until about this much time has passed (3 to 200 calls)."""


@dataclass(frozen=True)
class Rounds:
    """What was timed: one row per round, one column per session.

    Attributes:
        columns: The network that each column is a session of; several columns may carry one name.
        seconds: `seconds[r][j]` is the median time of one call of column `j` in round `r`.
        repeats: Calls per sample, one number per column.
    """

    columns: tuple[str, ...]
    seconds: tuple[tuple[float, ...], ...]
    repeats: tuple[int, ...]

    def log(self, names: str | Sequence[str]) -> Floats:
        """Logarithms of the seconds of all sessions of `names`, `(rounds, sessions)`."""
        wanted = {names} if isinstance(names, str) else set(names)
        index = [j for j, column in enumerate(self.columns) if column in wanted]
        if not index or not self.seconds:
            raise ConfigError(f"no timings of {sorted(wanted)}; these rounds hold {sorted(set(self.columns))}")
        return np.log(np.asarray(self.seconds, dtype=np.float64)[:, index])

    def as_dict(self) -> dict[str, Any]:
        """As JSON-able data; `Rounds.of` takes it back."""
        return {
            "columns": list(self.columns),
            "seconds": [list(r) for r in self.seconds],
            "repeats": list(self.repeats),
        }

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Rounds:
        """What `as_dict` made, also after a trip through JSON."""
        rows = tuple(tuple(float(s) for s in row) for row in data["seconds"])
        return cls(tuple(data["columns"]), rows, tuple(int(n) for n in data["repeats"]))


def interleave(
    calls: Calls,
    *,
    rounds: int = 40,
    seed: int = 0,
    repeats: int | None = None,
    warmup: float = WARMUP,
    sample_seconds: float = SAMPLE_SECONDS,
    on_round: OnRound | None = None,
) -> Rounds:
    """Time calls in rounds; each round runs all of them, in an order of its own.

    A sample is one untimed call (it brings the network back into the caches) and then `repeats` timed ones, of which
    the median counts. Garbage is not collected meanwhile.

    Args:
        calls: Name -> call, or name -> calls of several sessions of the same network.
        rounds: This many.
        seed: Of the orders.
        repeats: Timed calls per sample; by default as many as fill `sample_seconds`, between 3 and 200.
        warmup: Upper bound in seconds on warming up each call; it ends earlier when the times are stable.
        sample_seconds: Aim for the duration of a sample.
        on_round: Progress.
    """
    flat = [(name, call) for name, group in calls.items() for call in ([group] if callable(group) else group)]
    if not flat or rounds < 1:
        raise ConfigError(f"nothing to time: {len(flat)} calls, {rounds} rounds; give at least one of each")
    columns = tuple(name for name, _ in flat)
    warm = [_warm(call, warmup) for _, call in flat]
    counts = tuple(repeats or _repeats(seconds, sample_seconds) for seconds in warm)
    rng, rows = numpy_rng(seed, "timing", "order"), list[tuple[float, ...]]()
    for done in range(1, rounds + 1):
        row = [0.0] * len(flat)
        for j in rng.permutation(len(flat)):
            row[j] = _sample(flat[j][1], counts[j])
        rows.append(tuple(row))
        if on_round is not None:
            on_round(done, rounds)
    return Rounds(columns, tuple(rows), counts)


def _warm(call: Call, limit: float) -> float:
    """Call until the best of three stops falling; the last best, in seconds."""
    end, best = perf_counter() + limit, float("inf")
    while True:
        now = min(_timed(call) for _ in range(3))
        if now > 0.97 * best or perf_counter() > end:
            return min(now, best)
        best = now


def _repeats(seconds: float, aim: float) -> int:
    return int(min(200, max(3, aim / max(seconds, 1e-9))))


def _timed(call: Call) -> float:
    """Seconds of one call on the wall clock, without those in which the system ran something else on its core.

    If the calling thread was interrupted and never waited of its own accord (for a worker thread, a device, a file),
    its processor time is what the call would have taken had it kept the core.
    """
    waits, interruptions = _switches()
    used, start = thread_time_ns(), perf_counter_ns()
    call()
    wall, used = perf_counter_ns() - start, thread_time_ns() - used
    waits_after, interruptions_after = _switches()
    interrupted = interruptions_after > interruptions and waits_after == waits
    return (min(wall, used) if interrupted else wall) * 1e-9


def _switches() -> tuple[int, int]:
    """How often this thread gave its core away: by waiting, by being interrupted; zeros where nobody counts."""
    if sys.platform != "linux":
        return 0, 0
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_nvcsw, usage.ru_nivcsw


def _sample(call: Call, repeats: int) -> float:
    collecting = gc.isenabled()
    gc.disable()
    try:
        call()
        return statistics.median(_timed(call) for _ in range(repeats))
    finally:
        if collecting:
            gc.enable()

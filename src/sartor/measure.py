"""The one procedure that times networks: interleaved rounds, paired ratios, intervals, a verdict.

A latency in milliseconds on a machine that others use is worth little: it moves with the load. So every network is
timed in the same rounds as a reference, and its latency is a ratio to it. Load also falls harder on long calls than on
short ones, which fit between two interruptions; so the time that the system spends on something else is taken out. Two
sessions of one file differ by some per cent for as long as they live (their memory is laid out differently), so an
interval covers that spread as well.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from time import perf_counter, perf_counter_ns, thread_time_ns
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from sartor.core import plugins
from sartor.core.errors import ConfigError, TargetError
from sartor.core.records import Estimate
from sartor.core.rng import numpy_rng

if sys.platform == "linux":
    import resource

Call: TypeAlias = Callable[[], object]
Calls: TypeAlias = Mapping[str, Call | Sequence[Call]]
Floats: TypeAlias = NDArray[np.float64]

SESSION_SPREAD = 0.015
"""Expected standard deviation of log latency between sessions of one file; seen on ONNX Runtime: 0.004 to 0.028."""
SESSION_WEIGHT = 4.0
"""How many sessions' worth of evidence `SESSION_SPREAD` counts for beside the spread that is observed."""
SAMPLE_SECONDS = 0.005
"""A sample repeats its call until about this much time has passed (3 to 200 calls)."""
CONFIDENCE = 0.95
DRAWS = 500


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
    warmup: float = 0.5,
    sample_seconds: float = SAMPLE_SECONDS,
    until: Callable[[Rounds], bool] | None = None,
    on_round: Callable[[int, int], None] | None = None,
) -> Rounds:
    """Time calls in rounds; each round runs all of them, in an order of its own.

    A sample is one untimed call (it brings the network back into the caches) and then `repeats` timed ones, of which
    the median counts. Garbage is not collected meanwhile.

    Args:
        calls: Name -> call, or name -> calls of several sessions of the same network.
        rounds: At most this many.
        seed: Of the orders.
        repeats: Timed calls per sample; by default as many as fill `sample_seconds`, between 3 and 200.
        warmup: Upper bound in seconds on warming up each call; it ends earlier when the times are stable.
        sample_seconds: Aim for the duration of a sample.
        until: Asked every tenth round, stops early when true; see `narrow`.
        on_round: Told (rounds done, rounds at most).
    """
    flat = [(name, call) for name, group in calls.items() for call in ([group] if callable(group) else group)]
    if not flat or rounds < 1:
        raise ConfigError(f"nothing to time: {len(flat)} calls, {rounds} rounds; give at least one of each")
    columns = tuple(name for name, _ in flat)
    warm = [_warm(call, warmup) for _, call in flat]
    counts = tuple(repeats or _repeats(seconds, sample_seconds) for seconds in warm)
    rng, rows = numpy_rng(seed, "measure", "order"), list[tuple[float, ...]]()
    for done in range(1, rounds + 1):
        row = [0.0] * len(flat)
        for j in rng.permutation(len(flat)):
            row[j] = _sample(flat[j][1], counts[j])
        rows.append(tuple(row))
        if on_round is not None:
            on_round(done, rounds)
        if until is not None and done % 10 == 0 and until(Rounds(columns, tuple(rows), counts)):
            break
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


def ratio(rounds: Rounds, name: str | Sequence[str], reference: str | Sequence[str], *, seed: int = 0) -> Estimate:
    """The latency of a network as a fraction of the reference's, timed in the same rounds.

    All on logarithms: each sample is corrected by what slowed its whole round down; a session's value is its median
    over rounds; a network's is the mean over its sessions. The interval adds two parts in quadrature: a bootstrap over
    rounds, and Student's t for the spread between sessions, whose variance is pooled over both networks and shrunk
    towards `SESSION_SPREAD` (so one session per network is allowed, and gets an interval that admits the ignorance).

    Args:
        rounds: From `interleave`.
        name: The network, or several names that are sessions of one network.
        reference: Likewise.
        seed: Of the bootstrap.
    """
    a, b = rounds.log(name), rounds.log(reference)
    both = _without_drift(np.concatenate([a, b], axis=1))
    weights = np.concatenate([np.full(a.shape[1], 1 / a.shape[1]), np.full(b.shape[1], -1 / b.shape[1])])
    return _estimate(both, np.median, weights, (a.shape[1], b.shape[1]), seed)


def absolute(rounds: Rounds, name: str | Sequence[str], *, quantile: float = 0.1, seed: int = 0) -> Estimate:
    """Milliseconds of one call when nothing else disturbs: the 10 % quantile over rounds, mean over sessions.

    Load only ever adds time, so a low quantile is what an idle machine would show; it still moves with the clock rate
    and with load that never pauses. Compare networks by `ratio`; this is for telling people the order of magnitude.
    """
    logs = rounds.log(name)
    weights = np.full(logs.shape[1], 1 / logs.shape[1])

    def low(values: Floats, axis: int) -> Floats:
        return np.asarray(np.quantile(values, quantile, axis=axis), dtype=np.float64)

    return _estimate(logs, low, weights, (logs.shape[1],), seed).scaled(1e3)


def _without_drift(logs: Floats) -> Floats:
    """Take out of each row what is common to its columns; `(rounds, n)` -> `(rounds, n)`."""
    levels = np.median(logs, axis=0, keepdims=True)
    return np.asarray(logs - np.median(logs - levels, axis=1, keepdims=True), dtype=np.float64)


def _estimate(
    logs: Floats, centre: Callable[..., Floats], weights: Floats, groups: Sequence[int], seed: int
) -> Estimate:
    """`exp(weights @ centre(logs))` with its interval; `groups` are the sizes of the runs of columns of one network."""
    sessions = np.asarray(centre(logs, axis=0))
    value = float(weights @ sessions)
    n = len(logs)
    pick = numpy_rng(seed, "measure", "bootstrap").integers(n, size=(DRAWS, n))
    drawn = np.asarray(centre(logs[pick], axis=1))  # (DRAWS, columns)
    tail = (1 - CONFIDENCE) / 2
    below, above = np.abs(np.quantile(drawn @ weights, [tail, 1 - tail]) - value)
    layout = _session_error(sessions, drawn.var(axis=0), groups, tail)
    low, high = value - np.hypot(below, layout), value + np.hypot(above, layout)
    return Estimate(float(np.exp(value)), float(np.exp(low)), float(np.exp(high)))


def _session_error(sessions: Floats, noise: Floats, groups: Sequence[int], tail: float) -> float:
    """Half width that the choice of sessions gives the mean (or difference of means) of the groups."""
    squares, freedom, start = 0.0, 0, 0
    for size in groups:
        part = slice(start, start + size)
        # the deviations hold the noise within the sessions too, which the bootstrap already counts
        extra = float(((sessions[part] - sessions[part].mean()) ** 2).sum() - (size - 1) * noise[part].mean())
        squares, freedom, start = squares + max(0.0, extra), freedom + size - 1, start + size
    freedom_all = freedom + SESSION_WEIGHT
    variance = (squares + SESSION_WEIGHT * SESSION_SPREAD**2) / freedom_all
    return float(stats.t.ppf(1 - tail, freedom_all) * np.sqrt(variance * sum(1 / size for size in groups)))


def narrow(
    name: str | Sequence[str], reference: str | Sequence[str], *, relative: float = 0.02
) -> Callable[[Rounds], bool]:
    """For `interleave(until=...)`: true when half the interval of the ratio is at most `relative` of its value."""

    def enough(rounds: Rounds) -> bool:
        found = ratio(rounds, name, reference)
        return found.high - found.low <= 2 * relative * found.value

    return enough


def against_reference(
    reference: Call | Sequence[Call], candidate: Call | Sequence[Call], *, rounds: int = 12, seed: int = 0
) -> Estimate:
    """The ratio of one candidate to the reference, briefly: for hundreds of networks, one after another."""
    calls: Calls = {"reference": reference, "candidate": candidate}
    timed = interleave(calls, rounds=rounds, seed=seed, warmup=0.05, sample_seconds=SAMPLE_SECONDS / 2)
    return ratio(timed, "candidate", "reference", seed=seed)


def verdict(latency: Estimate, budget: float) -> Literal["PASS", "FAIL", "UNSURE"]:
    """Whether a latency meets a budget in the same unit: only an interval wholly on one side decides."""
    if latency.high <= budget:
        return "PASS"
    return "FAIL" if latency.low > budget else "UNSURE"


_PEAK = """
import json, sys
from sartor.measure import grown
print("bytes", grown(**json.loads(sys.argv[1])))
"""


def peak_memory(target: str, artifact: Path, shape: Sequence[int], *, settings: Mapping[str, Any] | None = None) -> int:
    """Bytes by which a fresh process grows, at its peak, when it loads an artifact and runs it three times.

    It counts what the runtime allocates, its copy of the weights included, on the CPU; libraries that are already
    loaded do not count. Linux only. Expect some hundred kilobytes of noise: for tiny networks the cost models say more.

    Args:
        target: Name of a target, or `some.module:Class`.
        artifact: What its `load` opens.
        shape: Of the input, batch first.
        settings: Of the target.

    Raises:
        TargetError: the process failed; the message ends with its last line.
    """
    job = {"target": target, "artifact": str(artifact), "shape": list(shape), "settings": dict(settings or {})}
    command = [sys.executable, "-c", _PEAK, json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("bytes ")]
    if done.returncode or not found:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise TargetError(f"cannot measure the memory of {artifact} on {target!r}: {last}")
    return int(found[-1].split()[1])


def grown(target: str, artifact: str, shape: Sequence[int], settings: Mapping[str, Any]) -> int:
    """What `peak_memory` runs in its own process: peak growth of resident memory in bytes."""
    runner = plugins.load("targets", target)(**settings)
    x = torch.zeros(*shape)
    gc.collect()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # makes the high-water mark start again here
    call = runner.load(Path(artifact)).bind(x)
    for _ in range(3):
        call()
    return max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise TargetError(f"/proc/self/status has no {field}; memory can be measured on Linux only")


def usable_cores() -> int:
    """How many cores this process may use; 0 if nobody knows."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0


def machine() -> dict[str, str | int]:
    """What a report must name beside a latency: processor, load, system, versions."""
    facts: dict[str, str | int] = {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "usable_cores": usable_cores(),
        "load_average": " ".join(f"{load:.2f}" for load in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown",
        "governor": _text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")) or "unknown",
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    for package in ("onnxruntime", "openvino"):
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return facts


def _processor() -> str:
    for line in _text(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

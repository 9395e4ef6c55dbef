"""From rounds to a value with its 95 % interval: ratios to a reference, milliseconds, a verdict.

Two sessions of one file differ by some per cent for as long as they live, and so do two processes: their memory is laid
out differently. More rounds do not help against that. So an interval has three parts, added in quadrature, all on
logarithms. Of `P` processes, each with some sessions of the networks in question,

* *rounds*: a bootstrap over the rounds of each process, of the mean over processes;
* *sessions*: Student's t with `f + w` degrees of freedom. The variance between sessions is pooled over all networks and
  processes (`f` degrees of freedom; what the rounds' noise explains is taken off) and shrunk towards an expected one,
  `s^2 = (sum of squares + w SESSION_SPREAD^2) / (f + w)`; the mean of `n` sessions in each process has `s^2 / (n P)`;
* *processes*, where there are at least two: likewise with `P - 1 + v` degrees of freedom,
  `t^2 = (sum of squares of the processes' values - (P - 1) * what rounds and sessions explain, at least 0,
  + v PROCESS_SPREAD^2) / (P - 1 + v)`, and the mean of the processes has `t^2 / P`.

Shrinking is an inverse-gamma prior on the variance (Gelman et al., Bayesian Data Analysis, section 2.6), `w` and `v`
being its weight in observations: so one session and two processes are allowed, and get an interval that admits the
ignorance. A single process tells nothing of others: its interval speaks of itself alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from scipy import stats

from sartor.core.errors import ConfigError
from sartor.core.records import Estimate
from sartor.core.rng import numpy_rng
from sartor.timing.rounds import Floats, Rounds

Runs: TypeAlias = Rounds | Sequence[Rounds]
"""What was timed: in one process, or in several."""

SESSION_SPREAD = 0.015
"""Expected standard deviation of log latency between sessions of one file; seen on ONNX Runtime: 0.004 to 0.028."""
SESSION_WEIGHT = 4.0
"""How many sessions' worth of evidence `SESSION_SPREAD` counts for beside the spread that is observed."""
PROCESS_SPREAD = 0.02
"""Expected standard deviation of a log ratio between processes beyond that; seen on ONNX Runtime: 0.01 to 0.05."""
PROCESS_WEIGHT = 3.0
"""How many processes' worth of evidence `PROCESS_SPREAD` counts for."""
CONFIDENCE = 0.95
DRAWS = 500


def ratio(runs: Runs, name: str | Sequence[str], reference: str | Sequence[str], *, seed: int = 0) -> Estimate:
    """The latency of a network as a fraction of the reference's, timed in the same rounds.

    Each sample is corrected by what slowed its whole round down; a session's value is its median over rounds; a
    network's is the mean over its sessions; the ratio's (its logarithm) is the mean over the processes.

    Args:
        runs: The rounds of one process, or of several.
        name: The network, or several names that are sessions of one network.
        reference: Likewise.
        seed: Of the bootstrap.
    """

    def both(rounds: Rounds) -> _Samples:
        a, b = rounds.log(name), rounds.log(reference)
        return _Samples(_without_drift(np.concatenate([a, b], axis=1)), (a.shape[1], b.shape[1]), (1.0, -1.0))

    return _estimate([both(rounds) for rounds in _several(runs)], np.median, seed)


def absolute(runs: Runs, name: str | Sequence[str], *, quantile: float = 0.1, seed: int = 0) -> Estimate:
    """Milliseconds of one call when nothing else disturbs: the 10 % quantile over rounds, mean over sessions.

    Load only ever adds time, so a low quantile is what an idle machine would show; it still moves with the clock rate
    and with load that never pauses. Compare networks by `ratio`; this is for telling people the order of magnitude.
    """

    def low(values: Floats, axis: int) -> Floats:
        return np.asarray(np.quantile(values, quantile, axis=axis), dtype=np.float64)

    def one(rounds: Rounds) -> _Samples:
        logs = rounds.log(name)
        return _Samples(logs, (logs.shape[1],), (1.0,))

    return _estimate([one(rounds) for rounds in _several(runs)], low, seed).scaled(1e3)


def verdict(latency: Estimate, budget: float) -> Literal["PASS", "FAIL", "UNSURE"]:
    """Whether a latency meets a budget in the same unit: only an interval wholly on one side decides."""
    if latency.high <= budget:
        return "PASS"
    return "FAIL" if latency.low > budget else "UNSURE"


@dataclass(frozen=True)
class _Samples:
    """What one process has seen.

    Attributes:
        logs: `(rounds, sessions)`, the sessions of one network after those of another.
        sizes: How many sessions each network has.
        signs: What each network's mean counts in the value.
    """

    logs: Floats
    sizes: tuple[int, ...]
    signs: tuple[float, ...]

    @property
    def weights(self) -> Floats:
        """Of each session in the value, `(sessions,)`."""
        return np.concatenate([np.full(n, sign / n) for n, sign in zip(self.sizes, self.signs, strict=True)])


@dataclass(frozen=True)
class _Found:
    """What one process says.

    Attributes:
        value: Logarithm of the ratio or latency.
        drawn: Bootstrap draws of it, `(DRAWS,)`.
        squares: Of the deviations between sessions of one network, beyond the rounds' noise, summed.
        freedom: Their degrees of freedom.
        share: Variance of the value per variance between sessions.
    """

    value: float
    drawn: Floats
    squares: float
    freedom: int
    share: float


def _several(runs: Runs) -> Sequence[Rounds]:
    found = [runs] if isinstance(runs, Rounds) else runs
    if not found:
        raise ConfigError("no rounds to estimate from; time something first")
    return found


def _without_drift(logs: Floats) -> Floats:
    """Take out of each row what is common to its columns; `(rounds, n)` -> `(rounds, n)`."""
    levels = np.median(logs, axis=0, keepdims=True)
    return np.asarray(logs - np.median(logs - levels, axis=1, keepdims=True), dtype=np.float64)


def _estimate(samples: Sequence[_Samples], centre: Callable[..., Floats], seed: int) -> Estimate:
    """`exp` of the mean over processes of `weights @ centre(logs)`, with the interval of the module's docstring."""
    found = [_found(part, centre, numpy_rng(seed, "timing", "bootstrap", p)) for p, part in enumerate(samples)]
    values = np.array([f.value for f in found])
    value, tail = float(values.mean()), (1 - CONFIDENCE) / 2
    drawn = np.mean([f.drawn for f in found], axis=0)
    below, above = np.abs(np.quantile(drawn, [tail, 1 - tail]) - value)
    squares, freedom = sum(f.squares for f in found), sum(f.freedom for f in found)
    session = _shrunk(squares, freedom, SESSION_SPREAD, SESSION_WEIGHT)
    shares = np.array([f.share for f in found])
    layout = _half(session * shares.sum() / len(found) ** 2, freedom + SESSION_WEIGHT)
    if len(found) > 1:
        known = np.mean([f.drawn.var() for f in found]) + session * shares.mean()
        layout = float(np.hypot(layout, _between(values, float(known))))
    low, high = value - np.hypot(below, layout), value + np.hypot(above, layout)
    return Estimate(float(np.exp(value)), float(np.exp(low)), float(np.exp(high)))


def _found(part: _Samples, centre: Callable[..., Floats], rng: np.random.Generator) -> _Found:
    sessions, n = np.asarray(centre(part.logs, axis=0)), len(part.logs)
    drawn = np.asarray(centre(part.logs[rng.integers(n, size=(DRAWS, n))], axis=1))  # (DRAWS, sessions)
    squares, start = 0.0, 0
    for size in part.sizes:
        own, noise = sessions[start : start + size], drawn[:, start : start + size].var(axis=0).mean()
        # the deviations hold the noise within the sessions too, which the bootstrap already counts
        squares += max(0.0, float(((own - own.mean()) ** 2).sum() - (size - 1) * noise))
        start += size
    share = sum(1 / size for size in part.sizes)
    freedom = sum(part.sizes) - len(part.sizes)
    return _Found(float(part.weights @ sessions), drawn @ part.weights, squares, freedom, share)


def _between(values: Floats, known: float) -> float:
    """Half width that the choice of processes gives their mean; `known`: the variance that each has anyway."""
    freedom = len(values) - 1
    squares = max(0.0, float(((values - values.mean()) ** 2).sum()) - freedom * known)
    variance = _shrunk(squares, freedom, PROCESS_SPREAD, PROCESS_WEIGHT)
    return _half(variance / len(values), freedom + PROCESS_WEIGHT)


def _shrunk(squares: float, freedom: int, expected: float, weight: float) -> float:
    return (squares + weight * expected**2) / (freedom + weight)


def _half(variance: float, freedom: float) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(variance))

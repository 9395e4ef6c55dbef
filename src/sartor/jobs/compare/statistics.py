"""What a comparison found: figures per strategy, intervals over seeds, gains over random search, hypervolumes.

Intervals are Student's t intervals over seeds. The gain over random search is the mean of the differences at equal
seeds where both have at least two seeds in common (a paired interval), else the difference of the means with Welch's
interval. Every interval is at 95 % on its own: nothing is corrected for the number of strategies.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from sartor.core.metrics import Metric
from sartor.core.records import Estimate
from sartor.jobs.compare.allowance import Price
from sartor.report.front import hypervolume_history
from sartor.run.comparison import Answer, Contestant, Corner, Figures, Gain, Tried, Use
from sartor.run.journal import FileJournal, read_contents

YARDSTICK = "random_search"
LEVEL = 0.95


@dataclass(frozen=True)
class Outcome:
    """One search of one strategy at one seed, and what became of its answer.

    Attributes:
        strategy: What it goes by.
        plugin: The strategy's own name.
        trained: Whether trials are trained networks (else they inherit a supernet's weights: another scale).
        answer: What it has named, with its trials as from `history`.
        settings: Of the strategy.
    """

    strategy: str
    plugin: str
    trained: bool
    answer: Answer
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Frame:
    """What all searches share.

    Attributes:
        metric: What is compared: the metric that decides in the task.
        limits: Cost -> bound.
        full: Cost -> that of the reference network, which bounds the hypervolumes.
    """

    metric: Metric
    limits: Mapping[str, float]
    full: Mapping[str, float]

    @property
    def main(self) -> str:
        """The first cost with a bound."""
        return next(iter(self.limits))


def history(folder: Path, frame: Frame, price: Price) -> tuple[tuple[Tried, ...], Use]:
    """The trials of a search folder, each with what had been spent when it was done; and what was spent in all."""
    journal, spent = FileJournal(folder / "journal.jsonl"), FileJournal(folder / "spent.jsonl")
    contents = read_contents(journal)
    trained = sum("epoch" in log for log in contents.logs)
    # a session that was killed counts trials that the next one counts again: all that led to so many, or fewer
    booked = sorted(((int(r["trials"]), float(r["seconds"])) for r in spent.read()), key=lambda row: row[0])
    reached, sums = [n for n, _ in booked], list(accumulate((s for _, s in booked), initial=0.0))
    epochs = float(trained)
    rows = []
    for i, trial in enumerate(contents.trials):
        epochs += price(trial.fidelity)
        known = {m: trial.metrics.get(m) for m in frame.limits}
        rows.append(
            Tried(
                trials=i + 1,
                epochs=epochs,
                seconds=sums[bisect_right(reached, i + 1)] if booked else None,
                cost=known[frame.main],
                quality=trial.metrics.get(frame.metric.name) if trial.ok else None,
                fidelity=trial.fidelity,
                inside=all(v is not None and v <= frame.limits[m] for m, v in known.items()),
            )
        )
    return tuple(rows), Use(len(rows), epochs, sums[-1] if booked else None)


def best_so_far(trials: Sequence[Tried], metric: Metric) -> list[float | None]:
    """Quality, as the search saw it, of the network that it would name after each trial.

    That is the best one inside the budget among those trained longest.
    """
    best: tuple[float, float] | None = None
    curve: list[float | None] = []
    for trial in trials:
        if trial.inside and trial.quality is not None:
            rank = (trial.fidelity, metric.sign * trial.quality)
            best = rank if best is None or rank > best else best
        curve.append(None if best is None else metric.sign * best[1])
    return curve


def interval(values: Sequence[float]) -> Estimate | None:
    """The mean with Student's 95 % interval; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, len(values) - 1)) * spread / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


def welch(a: Sequence[float], b: Sequence[float]) -> Estimate | None:
    """The difference of two means with Welch's 95 % interval; None if one has fewer than two values."""
    if min(len(a), len(b)) < 2:
        return None
    difference = statistics.fmean(a) - statistics.fmean(b)
    parts = [statistics.variance(v) / len(v) for v in (a, b)]
    error = math.sqrt(sum(parts))
    if not error:
        return Estimate(difference, difference, difference)
    freedom = sum(parts) ** 2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, (a, b), strict=True))
    half = float(stats.t.ppf(0.5 + LEVEL / 2, freedom)) * error
    return Estimate(difference, difference - half, difference + half)


def gain(ours: Mapping[int, float], theirs: Mapping[int, float], metric: Metric) -> Gain:
    """How much better than random search.

    Args:
        ours: Seed -> quality.
        theirs: The same of random search.
        metric: What quality is.
    """
    a, b = ({seed: metric.sign * value for seed, value in found.items()} for found in (ours, theirs))
    common = sorted(a.keys() & b.keys())
    if len(common) >= 2:
        differences = [a[s] - b[s] for s in common]
        found, method = interval(differences), f"paired t interval over {len(common)} seeds"
        flat = len(set(differences)) == 1 and differences[0] != 0
    else:
        found, flat = welch(list(a.values()), list(b.values())), False
        method = f"Welch's interval, {len(a)} and {len(b)} seeds"
    if found is None:
        value = statistics.fmean(a.values()) - statistics.fmean(b.values()) if a and b else None
        said = f"no {metric.name} to compare"
        if value is not None:
            said = f"{_signed(metric, value)} with too few seeds for an interval"
        return _unknown(value, "none", f"no gain can be claimed: {said}")
    words = f"{_signed(metric, found.value)} ({_bare(metric, found.low)} to {_bare(metric, found.high)})"
    if flat:  # no spread to judge by: an interval of no width would be a claim that no seed supports
        words += f", equal at all {len(common)} seeds: too few to tell"
        return _unknown(found.value, method, f"no gain can be claimed: {words}")
    ends = (found.value, found.low, found.high, method)
    if found.low <= 0 <= found.high:
        return Gain(*ends, "no gain", f"no gain: {words}, the interval holds 0")
    verdict = "gain" if found.low > 0 else "loss"
    return Gain(*ends, "gain" if found.low > 0 else "loss", f"{verdict}: {words}")


def contestants(outcomes: Sequence[Outcome], frame: Frame) -> tuple[dict[str, Contestant], str | None, Corner | None]:
    """All that the page shows of the strategies, in the order in which they come.

    Returns:
        Them by name, the name of random search, and what hypervolumes are shares of.
    """
    names = list(dict.fromkeys(o.strategy for o in outcomes))
    runs = {name: [o for o in outcomes if o.strategy == name] for name in names}
    tested = {n: {o.answer.seed: o.answer.quality for o in r if o.answer.quality is not None} for n, r in runs.items()}
    yardstick = next((n for n in names if runs[n][0].plugin == YARDSTICK), None)
    corner = _corner(outcomes, frame)
    found = {}
    for name in names:
        answers = tuple(_judged(o, frame, corner) for o in runs[name])
        found[name] = Contestant(
            plugin=runs[name][0].plugin,
            settings=dict(runs[name][0].settings),
            trained=runs[name][0].trained,
            answers=answers,
            tested=figures(list(tested[name].values())),
            used=Use(*(_median([a.used.of(unit) for a in answers]) for unit in ("trials", "epochs", "seconds"))),
            gain=_gain(name, yardstick, tested, frame.metric),
            hypervolume=_median([a.hypervolume for a in answers]),
        )
    return found, yardstick, corner


def _gain(name: str, yardstick: str | None, tested: Mapping[str, Mapping[int, float]], metric: Metric) -> Gain | None:
    if name == yardstick:
        return None
    if yardstick is None:
        return _unknown(None, "none", "no gain can be claimed: no random search was run")
    return gain(tested[name], tested[yardstick], metric)


def _unknown(value: float | None, method: str, sentence: str) -> Gain:
    return Gain(value, None, None, method, "unknown", sentence)


def figures(values: Sequence[float]) -> Figures:
    """Median, mean, and the interval of the mean."""
    return Figures(
        median=statistics.median(values) if values else None,
        mean=statistics.fmean(values) if values else None,
        interval=interval(values),
    )


def _judged(outcome: Outcome, frame: Frame, corner: Corner | None) -> Answer:
    """The answer, its trials with the best so far and the hypervolume."""
    answer = outcome.answer
    volumes = _volumes(outcome, frame, corner)
    known = [v for v in volumes if v is not None]
    best = best_so_far(answer.trials, frame.metric)
    trials = tuple(replace(t, best=b, hypervolume=v) for t, b, v in zip(answer.trials, best, volumes, strict=True))
    return replace(answer, trials=trials, hypervolume=known[-1] if known else None)


def _counted(outcome: Outcome) -> Iterator[tuple[int, float, float]]:
    """Index, cost and quality of the trials that a hypervolume takes: networks trained in full."""
    for i, t in enumerate(outcome.answer.trials if outcome.trained else ()):
        if t.quality is not None and t.cost is not None and t.fidelity >= 1:
            yield i, t.cost, t.quality


def _corner(outcomes: Sequence[Outcome], frame: Frame) -> Corner | None:
    """The reference network's cost, and the worst and the best quality of any trial that counts."""
    seen = [frame.metric.sign * q for o in outcomes for _, _, q in _counted(o)]
    if not seen:
        return None
    return Corner(frame.full[frame.main], frame.metric.sign * min(seen), frame.metric.sign * max(seen))


def _volumes(outcome: Outcome, frame: Frame, corner: Corner | None) -> list[float | None]:
    """After each trial, what it dominates of the box between the worst at full cost and the best at none, a share."""
    trials = outcome.answer.trials
    found: list[float | None] = [None] * len(trials)
    counted = list(_counted(outcome))
    if corner is None or not counted:
        return found
    box = corner.cost * abs(corner.best - corner.worst) or 1.0
    areas = hypervolume_history([(c, q) for _, c, q in counted], (corner.cost, corner.worst), frame.metric.goal)
    at = {i: area / box for (i, _, _), area in zip(counted, areas, strict=True)}
    last = None
    for i in range(len(found)):
        last = at.get(i, last)
        found[i] = last
    return found


def _median(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.median(known)) if known and len(known) == len(values) else None


def _signed(metric: Metric, value: float) -> str:
    return metric.difference(value, places=2)


def _bare(metric: Metric, value: float) -> str:
    """The number alone."""
    return metric.difference(value, places=2).partition(" ")[0]

"""What a comparison found: figures per strategy, intervals over seeds, gains over random search, hypervolumes.

Intervals are Student's t intervals over seeds. The gain over random search is the mean of the differences at equal
seeds where both have at least two seeds in common (a paired interval), else the difference of the means with Welch's
interval. Every interval is at 95 % on its own: nothing is corrected for the number of strategies.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from sartor.jobs.compare.allowance import Price
from sartor.report.front import hypervolume_history
from sartor.run.journal import FileJournal, read_logs, read_trials

YARDSTICK = "random_search"
LEVEL = 0.95


@dataclass(frozen=True)
class Outcome:
    """One search of one strategy at one seed, and what became of its answer.

    Attributes:
        plugin: The strategy's own name, whatever it goes by.
        arch: Its answer; None if it has none, for `reason`.
        accuracy: Of the answer, trained in full, on the test split.
        examples: Size of that split, if known.
        valid: The same on the validation split.
        modelled: Metric -> cost of the answer, as the search saw it.
        latency: As measured, with its interval.
        spent: `trials`, `epochs`, `seconds`; None is what nobody knows.
        trials: As from `history`.
        trained: Whether trials are trained networks (else they inherit a supernet's weights: another scale).
        others: Answers at further points of the budget, each with `cost` and `accuracy`.
    """

    strategy: str
    plugin: str
    seed: int
    arch: Sequence[int] | None
    accuracy: float | None
    modelled: Mapping[str, float]
    spent: Mapping[str, float | None]
    trials: Sequence[Mapping[str, Any]]
    trained: bool
    examples: int | None = None
    valid: float | None = None
    latency: Mapping[str, float] | None = None
    widths: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    others: Sequence[Mapping[str, float]] = ()


@dataclass(frozen=True)
class Frame:
    """What all searches share.

    Attributes:
        metric: What is compared, the task's first.
        limits: Metric -> bound.
        full: Metric -> cost of the reference network, which bounds the hypervolumes.
    """

    metric: str
    limits: Mapping[str, float]
    full: Mapping[str, float]

    @property
    def main(self) -> str:
        """The first cost with a bound."""
        return next(iter(self.limits))


def history(folder: Path, frame: Frame, price: Price) -> tuple[list[dict[str, Any]], dict[str, float | None]]:
    """The trials of a search folder, each with what had been spent when it was done; and what was spent in all."""
    journal, spent = FileJournal(folder / "journal.jsonl"), FileJournal(folder / "spent.jsonl")
    trained = sum("epoch" in log for log in read_logs(journal))
    booked = [(int(r["trials"]), float(r["seconds"])) for r in spent.read()]
    epochs = float(trained)
    rows = []
    for i, trial in enumerate(read_trials(journal)):
        epochs += price(trial.fidelity)
        known = {m: trial.metrics.get(m) for m in frame.limits}
        rows.append(
            {
                "trials": i + 1,
                "epochs": epochs,
                "seconds": sum(s for n, s in booked if n <= i + 1) if booked else None,
                "cost": known[frame.main],
                "accuracy": trial.metrics.get(frame.metric) if trial.ok else None,
                "fidelity": trial.fidelity,
                "inside": all(v is not None and v <= frame.limits[m] for m, v in known.items()),
            }
        )
    seconds = sum(s for _, s in booked) if booked else None
    return rows, {"trials": len(rows), "epochs": epochs, "seconds": seconds}


def best_so_far(trials: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Accuracy, as the search saw it, of the network that it would name after each trial.

    That is the best one inside the budget among those trained longest.
    """
    best: tuple[float, float] | None = None
    curve: list[float | None] = []
    for trial in trials:
        if trial["inside"] and trial["accuracy"] is not None:
            rank = (trial["fidelity"], trial["accuracy"])
            best = rank if best is None or rank > best else best
        curve.append(None if best is None else best[1])
    return curve


def interval(values: Sequence[float]) -> dict[str, float] | None:
    """The mean with Student's 95 % interval; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, len(values) - 1)) * spread / math.sqrt(len(values))
    return {"value": mean, "low": mean - half, "high": mean + half}


def welch(a: Sequence[float], b: Sequence[float]) -> dict[str, float] | None:
    """The difference of two means with Welch's 95 % interval; None if one has fewer than two values."""
    if min(len(a), len(b)) < 2:
        return None
    difference = statistics.fmean(a) - statistics.fmean(b)
    parts = [statistics.variance(v) / len(v) for v in (a, b)]
    error = math.sqrt(sum(parts))
    if not error:
        return {"value": difference, "low": difference, "high": difference}
    freedom = sum(parts) ** 2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, (a, b), strict=True))
    half = float(stats.t.ppf(0.5 + LEVEL / 2, freedom)) * error
    return {"value": difference, "low": difference - half, "high": difference + half}


def gain(ours: Mapping[int, float], theirs: Mapping[int, float]) -> dict[str, Any]:
    """How much better than random search.

    Args:
        ours: Seed -> accuracy.
        theirs: The same of random search.

    Returns:
        `value`, `low`, `high` (None if too few seeds tell), `method`, `verdict` (`gain`, `loss`, `no gain`, `unknown`)
        and `sentence`.
    """
    common = sorted(ours.keys() & theirs.keys())
    if len(common) >= 2:
        differences = [ours[s] - theirs[s] for s in common]
        found, method = interval(differences), f"paired t interval over {len(common)} seeds"
        flat = len(set(differences)) == 1 and differences[0] != 0
    else:
        found, flat = welch(list(ours.values()), list(theirs.values())), False
        method = f"Welch's interval, {len(ours)} and {len(theirs)} seeds"
    if found is None:
        value = statistics.fmean(ours.values()) - statistics.fmean(theirs.values()) if ours and theirs else None
        said = "no accuracy to compare" if value is None else f"{_points(value)} with too few seeds for an interval"
        return {**_unknown(value, "none"), "sentence": f"no gain can be claimed: {said}"}
    words = f"{_points(found['value'])} ({_points(found['low'], '')} to {_points(found['high'], '')})"
    if flat:  # no spread to judge by: an interval of no width would be a claim that no seed supports
        return {
            **_unknown(found["value"], method),
            "sentence": f"no gain can be claimed: {words}, equal at all {len(common)} seeds: too few to tell",
        }
    if found["low"] <= 0 <= found["high"]:
        return {**found, "method": method, "verdict": "no gain", "sentence": f"no gain: {words}, the interval holds 0"}
    verdict = "gain" if found["low"] > 0 else "loss"
    return {**found, "method": method, "verdict": verdict, "sentence": f"{verdict}: {words}"}


def summary(outcomes: Sequence[Outcome], frame: Frame) -> dict[str, Any]:
    """All that the page shows of the strategies, in the order in which they come."""
    names = list(dict.fromkeys(o.strategy for o in outcomes))
    runs = {name: [o for o in outcomes if o.strategy == name] for name in names}
    tested = {n: {o.seed: o.accuracy for o in r if o.accuracy is not None} for n, r in runs.items()}
    yardstick = next((n for n in names if runs[n][0].plugin == YARDSTICK), None)
    reference = _reference_point(outcomes, frame)
    strategies = {}
    for name in names:
        strategies[name] = {
            "plugin": runs[name][0].plugin,
            "settings": dict(runs[name][0].settings),
            "trained": runs[name][0].trained,
            "runs": [_run(o, reference) for o in runs[name]],
            **figures(list(tested[name].values())),
            "spent": {unit: _median([o.spent[unit] for o in runs[name]]) for unit in ("trials", "epochs", "seconds")},
            "gain": _gain(name, yardstick, tested),
        }
        volumes = [r["hypervolume"] for r in strategies[name]["runs"]]
        strategies[name]["hypervolume"] = _median(volumes)
    return {
        "metric": frame.metric,
        "budget": dict(frame.limits),
        "cost": frame.main,
        "yardstick": yardstick,
        "hypervolume_reference": reference,
        "strategies": strategies,
    }


def _gain(name: str, yardstick: str | None, tested: Mapping[str, Mapping[int, float]]) -> dict[str, Any] | None:
    if name == yardstick:
        return None
    if yardstick is None:
        return {**_unknown(None, "none"), "sentence": "no gain can be claimed: no random search was run"}
    return gain(tested[name], tested[yardstick])


def _unknown(value: float | None, method: str) -> dict[str, Any]:
    return {"value": value, "low": None, "high": None, "method": method, "verdict": "unknown"}


def figures(values: Sequence[float]) -> dict[str, Any]:
    """Median, mean, and the interval of the mean."""
    return {
        "median": statistics.median(values) if values else None,
        "mean": statistics.fmean(values) if values else None,
        "interval": interval(values),
    }


def _run(outcome: Outcome, reference: Mapping[str, float] | None) -> dict[str, Any]:
    volumes = _volumes(outcome, reference)
    known = [v for v in volumes if v is not None]
    return {
        "seed": outcome.seed,
        "arch": None if outcome.arch is None else list(outcome.arch),
        "widths": dict(outcome.widths),
        "reason": outcome.reason,
        "accuracy": outcome.accuracy,
        "valid": outcome.valid,
        "examples": outcome.examples,
        "modelled": dict(outcome.modelled),
        "latency_ms": None if outcome.latency is None else dict(outcome.latency),
        "spent": dict(outcome.spent),
        "hypervolume": known[-1] if known else None,
        "others": [dict(o) for o in outcome.others],
        "trials": [
            {**trial, "best": best, "hypervolume": volume}
            for trial, best, volume in zip(outcome.trials, best_so_far(outcome.trials), volumes, strict=True)
        ],
    }


def _counted(outcome: Outcome) -> Iterator[tuple[int, float, float]]:
    """Index, cost and accuracy of the trials that a hypervolume takes: networks trained in full."""
    for i, t in enumerate(outcome.trials if outcome.trained else ()):
        if t["accuracy"] is not None and t["cost"] is not None and t["fidelity"] >= 1:
            yield i, t["cost"], t["accuracy"]


def _reference_point(outcomes: Sequence[Outcome], frame: Frame) -> dict[str, float] | None:
    """The reference network's cost and the worst accuracy of any trial that counts."""
    worst = [a for o in outcomes for _, _, a in _counted(o)]
    return {"cost": frame.full[frame.main], "accuracy": min(worst)} if worst else None


def _volumes(outcome: Outcome, reference: Mapping[str, float] | None) -> list[float | None]:
    """After each trial, what it dominates of the box between the reference point and (no cost, accuracy 1), a share."""
    found: list[float | None] = [None] * len(outcome.trials)
    counted = list(_counted(outcome))
    if reference is None or not counted:
        return found
    box = reference["cost"] * (1 - reference["accuracy"]) or 1.0
    areas = hypervolume_history([(c, a) for _, c, a in counted], (reference["cost"], reference["accuracy"]))
    at = {i: area / box for (i, _, _), area in zip(counted, areas, strict=True)}
    last = None
    for i in range(len(found)):
        last = at.get(i, last)
        found[i] = last
    return found


def _median(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.median(known)) if known and len(known) == len(values) else None


def _points(value: float, unit: str = " points") -> str:
    return f"{round(100 * value, 2) + 0.0:+.2f}{unit}"  # no minus before a zero

"""Finished runs of one problem, side by side: read from their folders, nothing is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sartor.config import Table
from sartor.core import plugins
from sartor.core.errors import ConfigError
from sartor.jobs.compare.allowance import FREE
from sartor.jobs.compare.statistics import Frame, Outcome, contestants, figures, history
from sartor.run import comparison as comparisons
from sartor.run.comparison import Answer, Comparison, Other, Posed, Use, Yardstick
from sartor.run.folder import read_config
from sartor.run.result import Entry, Result, read_result

NAMES = {"fingerprint": "data", "choices": "space", "metrics": "metrics", "costs": "budgeted costs", "budget": "budget"}
"""What two runs must share, and what a person calls it."""


@dataclass(frozen=True)
class Finished:
    """One folder.

    Attributes:
        values: Quality of the reference on the test split.
        training: Its table in the config.
        fit: Whether it is of `sartor fit`, else of a comparison.
    """

    title: str
    problem: Posed
    frame: Frame
    outcomes: tuple[Outcome, ...]
    values: tuple[float, ...]
    training: object
    fit: bool


def gather(folders: Sequence[Path], out: Path, *, point: int = 0) -> Comparison:
    """Compare finished runs.

    Args:
        folders: Of `sartor fit`, or of comparisons.
        out: Where `compare.json` goes.
        point: Which of several budgets, counted from 0.

    Returns:
        What `compare.json` holds.

    Raises:
        ConfigError: The runs are of different problems, or two are the same run.
        StateError: A folder holds no finished run.
    """
    if (out / "config.toml").exists() or any(out.resolve() == f.resolve() for f in folders):
        raise ConfigError(f"{out} holds a run of its own, which a page of others would replace; name another --out")
    places = [f.resolve() for f in folders]
    if twice := [f for f, place in zip(folders, places, strict=True) if places.count(place) > 1]:
        raise ConfigError(f"{twice[0]} is named twice; leave one out")
    read = [_read(folder, point) for folder in folders]
    for folder, one in zip(folders[1:], read[1:], strict=True):
        _check_same(folders[0], read[0].problem, folder, one.problem)
    frame = read[0].frame
    outcomes = _distinct([(o, f) for f, one in zip(folders, read, strict=True) for o in one.outcomes])
    values = tuple(v for one in read for v in one.values)
    found, yardstick, corner = contestants(outcomes, frame)
    comparison = Comparison(
        title=read[0].title,
        metric=frame.metric,
        budget=dict(frame.limits),
        seeds=tuple(sorted({o.answer.seed for o in outcomes})),
        problem=read[0].problem,
        reference=Yardstick(dict(frame.full), values, figures(values)),
        contestants=found,
        yardstick=yardstick,
        corner=corner,
        notes=tuple(_notes(folders, read, frame)),
        folders=tuple(map(str, folders)),
    )
    out.mkdir(parents=True, exist_ok=True)
    comparisons.write(out, comparison)
    return comparison


def _read(folder: Path, point: int) -> Finished:
    if (folder / comparisons.FILE).exists():
        return _comparison(folder)
    return _fit(folder, read_result(folder), read_config(folder / "config.toml"), point)


def _comparison(folder: Path) -> Finished:
    found = comparisons.read(folder)
    settings = read_config(folder / "config.toml") if (folder / "config.toml").exists() else {}
    return Finished(
        title=found.title,
        problem=found.problem,
        frame=Frame(found.metric, found.budget, found.reference.modelled),
        outcomes=tuple(
            Outcome(name, row.plugin, row.trained, answer, row.settings)
            for name, row in found.contestants.items()
            for answer in row.answers
        ),
        values=found.reference.values,
        training=settings.get("training"),
        fit=False,
    )


def _fit(folder: Path, result: Result, config: Table, point: int) -> Finished:
    """A run of `sartor fit`: the search's own network, and the uniformly scaled one that comes with it."""
    if not 0 <= point < len(result.points):
        raise ConfigError(f"{folder} has {len(result.points)} budgets, counted from 0; there is no {point}")
    chosen, search, reference = result.points[point], result.search, result.reference
    frame = Frame(result.metric, chosen.budget, {**_costs(reference), **_measured(reference, chosen.budget)})
    kind = plugins.load("strategies", search.strategy)
    paid = {p.fidelity: p.epochs for p in search.paid}
    trials, used = history(folder / "search", frame, paid.__getitem__)
    used = replace(used, seconds=sum(s.seconds for s in result.spent.stages if s.name == "search"))
    others = tuple(
        Other(p.searched.cost(frame.main).value, p.searched.scores[frame.metric.name].value)
        for i, p in enumerate(result.points)
        if i != point
    )
    seed = int(result.environment["seed"])
    answer = replace(_answer(chosen.searched, seed, frame), used=used, trials=trials, others=others)
    outcomes = [Outcome(search.strategy, search.strategy, not kind.shares_weights, answer, search.settings)]
    if chosen.uniform is not None and search.strategy != FREE:
        free = replace(_answer(chosen.uniform, seed, frame), used=Use(0.0, 0.0, 0.0))
        outcomes.append(Outcome(FREE, FREE, True, free))
    return Finished(
        title=result.title,
        problem=Posed(
            fingerprint=result.environment["data"]["fingerprint"],
            choices=search.choices,
            metrics=result.metrics,
            costs=tuple(chosen.budget),
            budget=config["budget"],
        ),
        frame=frame,
        outcomes=tuple(outcomes),
        values=(reference.scores[frame.metric.name].value,),
        training=config.get("training"),
        fit=True,
    )


def _answer(network: Entry, seed: int, frame: Frame) -> Answer:
    score = network.scores[frame.metric.name]
    return Answer(
        seed=seed,
        arch=network.arch,
        quality=score.value,
        valid=network.valid.get(frame.metric.name),
        examples=score.examples,
        modelled=_costs(network),
        latency_ms=network.latency_ms,
        options=network.options,
    )


def _costs(network: Entry) -> dict[str, float]:
    known = {m: network.cost(m).value for m in ("macs", "params", "memory_bytes")}
    predicted = network.predicted_latency_ms
    return known if predicted is None else {**known, "latency_ms": predicted}


def _measured(network: Entry, limits: Mapping[str, float]) -> dict[str, float]:
    return {"latency_ms": network.latency_ms.value} if "latency_ms" in limits else {}


def _check_same(first: Path, ours: Posed, second: Path, theirs: Posed) -> None:
    for key, name in NAMES.items():
        a, b = getattr(ours, key), getattr(theirs, key)
        if a == b:
            continue
        if key == "choices" and len(a) == len(b):
            a, b = next((x, y) for x, y in zip(a, b, strict=True) if x != y)
        elif key == "choices":
            a, b = f"{len(a)} choices", f"{len(b)} choices"
        elif key == "metrics":
            a, b = (", ".join(f"{m.name} ({m.goal}) {m.unit}".rstrip() for m in metrics) for metrics in (a, b))
        raise ConfigError(
            f"{first} and {second} are runs of different problems: their {name} differ ({_short(a)} and "
            f"{_short(b)}); compare runs of one problem"
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _distinct(found: Sequence[tuple[Outcome, Path]]) -> list[Outcome]:
    """Give strategies with other settings other names; uniform scaling comes with every fit and counts once per seed.

    Raises:
        ConfigError: The same strategy with the same settings and seed twice.
    """
    kinds: dict[tuple[str, str], str] = {}
    seen: dict[tuple[str, int], Path] = {}
    outcomes = []
    for outcome, folder in found:
        key = (outcome.strategy, repr(sorted(outcome.settings.items())))
        if key not in kinds:
            words = ", ".join(f"{k}={v}" for k, v in outcome.settings.items())
            name = outcome.strategy
            if name in kinds.values():
                name = f"{name} ({words or 'defaults'})"
            kinds[key] = name
        named = replace(outcome, strategy=kinds[key])
        before = seen.setdefault((named.strategy, named.answer.seed), folder)
        if before != folder and outcome.plugin == FREE:
            continue
        if before != folder:
            raise ConfigError(
                f"{before} and {folder} are the same: {named.strategy} at seed {named.answer.seed}; leave one out"
            )
        outcomes.append(named)
    return outcomes


def _notes(folders: Sequence[Path], read: Sequence[Finished], frame: Frame) -> list[str]:
    notes = [
        "The searches were given what their own configs say: the columns of what was spent tell how equal that is."
    ]
    if any(one.fit for one in read):
        notes.append("Times of runs of `sartor fit` are of the whole search stage on the clock, not processor time.")
    other = [str(f) for f, one in zip(folders, read, strict=True) if one.training != read[0].training]
    if other:
        notes.append(f"{folders[0]} and {', '.join(other)} were trained by different recipes: results mix the two.")
    if frame.main == "latency_ms" and len(folders) > 1:
        notes.append("Every folder measured its own reference and latency model: milliseconds differ a little by that.")
    return notes

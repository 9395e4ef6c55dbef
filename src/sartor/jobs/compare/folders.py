"""Finished runs of one problem, side by side: read from their folders, nothing is run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sartor.core import plugins
from sartor.core.errors import ConfigError, StateError
from sartor.jobs.compare.allowance import FREE
from sartor.jobs.compare.run import RESULT
from sartor.jobs.compare.statistics import Frame, Outcome, figures, history, summary
from sartor.run.folder import read_config, read_json, write_json
from sartor.run.journal import FileJournal, read_trials

NAMES = {"fingerprint": "data", "choices": "space", "metrics": "metrics", "costs": "budgeted costs", "budget": "budget"}
"""What two runs must share, and what a person calls it."""


def gather(folders: Sequence[Path], out: Path, *, point: int = 0) -> dict[str, Any]:
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
        _check_same(folders[0], read[0]["problem"], folder, one["problem"])
    frame: Frame = read[0]["frame"]
    outcomes = _distinct([(o, f) for f, one in zip(folders, read, strict=True) for o in one["outcomes"]])
    tested = [a for one in read for a in one["reference"]]
    found = {
        "title": read[0]["title"],
        "kind": "folders",
        "folders": [str(f) for f in folders],
        "seeds": sorted({o.seed for o in outcomes}),
        "problem": read[0]["problem"],
        "reference": {"modelled": dict(frame.full), **figures(tested), "accuracies": tested},
        **summary(outcomes, frame),
        "left_out": {},
        "notes": list(_notes(folders, read, frame)),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / RESULT, found)
    return found


def _read(folder: Path, point: int) -> dict[str, Any]:
    """Title, problem, frame, outcomes, accuracies of the reference, and the recipe of the training."""
    try:
        if (folder / RESULT).exists():
            return _comparison(folder)
        return _fit(folder, read_json(folder / "result.json"), read_config(folder / "config.toml"), point)
    except (KeyError, TypeError, AttributeError) as error:
        raise StateError(f"{folder} holds no result that can be compared ({error!r}); finish the run again") from error


def _comparison(folder: Path) -> dict[str, Any]:
    raw = read_json(folder / RESULT)
    outcomes = [_outcome(n, row, run) for n, row in raw["strategies"].items() for run in row["runs"]]
    settings = read_config(folder / "config.toml") if (folder / "config.toml").exists() else {}
    return {
        "title": raw["title"],
        "problem": raw["problem"],
        "frame": Frame(raw["metric"], raw["budget"], raw["reference"]["modelled"]),
        "outcomes": outcomes,
        "reference": raw["reference"]["accuracies"],
        "training": settings.get("training"),
        "wall": False,
    }


def _outcome(name: str, row: Mapping[str, Any], run: Mapping[str, Any]) -> Outcome:
    return Outcome(
        strategy=name,
        plugin=row["plugin"],
        seed=run["seed"],
        arch=run["arch"],
        accuracy=run["accuracy"],
        examples=run["examples"],
        valid=run["valid"],
        modelled=run["modelled"],
        latency=run["latency_ms"],
        spent=run["spent"],
        trials=[{k: v for k, v in t.items() if k not in ("best", "hypervolume")} for t in run["trials"]],
        trained=row["trained"],
        widths=run["widths"],
        settings=row["settings"],
        reason=run["reason"],
        others=run["others"],
    )


def _fit(folder: Path, raw: Mapping[str, Any], config: Mapping[str, Any], point: int) -> dict[str, Any]:
    """A run of `sartor fit`: the search's own network, and the uniformly scaled one that comes with it."""
    if not 0 <= point < len(raw["curve"]):
        raise ConfigError(f"{folder} has {len(raw['curve'])} budgets, counted from 0; there is no {point}")
    entry, search, reference = raw["curve"][point], raw["search"], raw["reference"]
    own = _own(entry)
    metric = next(iter(own["metrics"]))
    frame = Frame(metric, entry["budget"], {**_costs(reference), **_measured(reference, entry["budget"])})
    kind = plugins.load("strategies", search["strategy"])
    tried = read_trials(FileJournal(folder / "search" / "journal.jsonl"))
    paid = {t.fidelity: float(epochs) for t, epochs in zip(tried, search["epochs"], strict=False)}
    trials, spent = history(folder / "search", frame, paid.__getitem__)
    spent = {**spent, "seconds": sum(s["seconds"] for s in raw["ledger"]["stages"] if s["name"] == "search")}
    answer = Outcome(
        strategy=search["strategy"],
        plugin=search["strategy"],
        seed=raw["environment"]["seed"],
        **_answer(own),
        valid=_valid(folder, f"winner_{point}", metric),
        spent=spent,
        trials=trials,
        trained=not kind.shares_weights,
        settings=search["settings"],
        others=[
            {"cost": _cost(network, frame.main), "accuracy": network["accuracy"]}
            for i, network in enumerate(map(_own, raw["curve"]))
            if i != point
        ],
    )
    outcomes = [answer]
    if entry.get("uniform") and answer.plugin != FREE:
        free = dict.fromkeys(spent, 0.0)
        valid = _valid(folder, f"uniform_{point}", metric)
        scaled = replace(
            answer, strategy=FREE, plugin=FREE, spent=free, trials=(), trained=True, settings={}, others=()
        )
        outcomes.append(replace(scaled, valid=valid, **_answer(entry["uniform"])))
    return {
        "title": raw["title"],
        "problem": {
            "fingerprint": raw["environment"]["data"]["fingerprint"],
            "choices": search["choices"],
            "metrics": list(own["metrics"]),
            "costs": list(entry["budget"]),
            "budget": config["budget"],
        },
        "frame": frame,
        "outcomes": outcomes,
        "reference": [reference["accuracy"]],
        "training": config.get("training"),
        "wall": True,
    }


def _own(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The search's own network, which is not the winner where uniform scaling's was better."""
    own: Mapping[str, Any] = entry.get("searched") or entry["winner"]
    return own


def _answer(network: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "arch": network["arch"],
        "accuracy": network["accuracy"],
        "examples": network.get("accuracy_examples"),
        "modelled": _costs(network),
        "latency": network["latency_ms"],
        "widths": network["widths"],
    }


def _costs(network: Mapping[str, Any]) -> dict[str, float]:
    known = {m: float(network[m]) for m in ("macs", "params", "memory_bytes")}
    predicted = network.get("predicted_latency_ms")
    return known if predicted is None else {**known, "latency_ms": float(predicted)}


def _measured(network: Mapping[str, Any], limits: Mapping[str, float]) -> dict[str, float]:
    return {"latency_ms": float(network["latency_ms"]["value"])} if "latency_ms" in limits else {}


def _cost(network: Mapping[str, Any], metric: str) -> float:
    value = network[metric]
    return float(value["value"] if isinstance(value, Mapping) else value)


def _valid(folder: Path, role: str, metric: str) -> float | None:
    """Validation accuracy of the last network that was trained for a role; `winner_0`, ... are the search's own."""
    found = None
    for record in FileJournal(folder / "journal.jsonl").read():
        if record["kind"] == "stage" and re.fullmatch(rf"training\.training\.{role}(_\d+)?", record["name"]):
            found = record["result"]["valid"][metric]
    return found


def _check_same(first: Path, ours: Mapping[str, Any], second: Path, theirs: Mapping[str, Any]) -> None:
    for key, name in NAMES.items():
        if key not in ours or key not in theirs or ours[key] == theirs[key]:
            continue
        a, b = ours[key], theirs[key]
        if key == "choices" and len(a) == len(b):
            a, b = next((x, y) for x, y in zip(a, b, strict=True) if x != y)
        elif key == "choices":
            a, b = f"{len(a)} choices", f"{len(b)} choices"
        raise ConfigError(
            f"{first} and {second} are runs of different problems: their {name} differ ({_short(a)} and "
            f"{_short(b)}); compare runs of one problem"
        )


def _short(value: Any) -> str:
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
        before = seen.setdefault((named.strategy, named.seed), folder)
        if before != folder and outcome.plugin == FREE:
            continue
        if before != folder:
            raise ConfigError(
                f"{before} and {folder} are the same: {named.strategy} at seed {named.seed}; leave one out"
            )
        outcomes.append(named)
    return outcomes


def _notes(folders: Sequence[Path], read: Sequence[Mapping[str, Any]], frame: Frame) -> list[str]:
    notes = [
        "The searches were given what their own configs say: the columns of what was spent tell how equal that is."
    ]
    if any(one["wall"] for one in read):
        notes.append("Times of runs of `sartor fit` are of the whole search stage on the clock, not processor time.")
    other = [str(f) for f, one in zip(folders, read, strict=True) if one["training"] != read[0]["training"]]
    if other:
        notes.append(f"{folders[0]} and {', '.join(other)} were trained by different recipes: accuracies mix the two.")
    if frame.main == "latency_ms" and len(folders) > 1:
        notes.append("Every folder measured its own reference and latency model: milliseconds differ a little by that.")
    return notes

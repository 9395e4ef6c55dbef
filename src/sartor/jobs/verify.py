"""Measure everything in a `result.json` again, from the exported files, and say whether it still holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sartor.core.contracts import Session, Task
from sartor.core.errors import StateError
from sartor.core.records import Estimate
from sartor.jobs.parts import Parts, assemble
from sartor.jobs.verification import judge, latencies
from sartor.networks import macs_params
from sartor.run.folder import read_config, read_json
from sartor.run.progress import Display, Silent
from sartor.timing.meter import Subject
from sartor.training import accuracy_interval

TOLERANCE = 0.03
"""By how much a latency may differ from the one in the result beyond both intervals."""


@dataclass(frozen=True)
class Check:
    """One number of one network, then and now."""

    network: str
    what: str
    then: str
    now: str
    holds: bool


@dataclass(frozen=True)
class Verification:
    """All checks, and the verdicts against the budget as measured now."""

    checks: tuple[Check, ...]
    sentences: tuple[str, ...]
    verdicts: tuple[str, ...]
    entries: Mapping[str, Mapping[str, Any]]

    @property
    def holds(self) -> bool:
        """Whether every number is confirmed and every budget met."""
        return all(c.holds for c in self.checks) and all(v == "PASS" for v in self.verdicts)


def verify(folder: Path, *, display: Display | None = None, objects: Mapping[str, Any] | None = None) -> Verification:
    """Time, count and test the networks of a finished run again.

    Latencies are ratios to the reference, timed in the same rounds, in the milliseconds that the run fixed for it:
    so a machine that is busier or slower today changes nothing. Accuracy is that of the exported file on the target.

    Args:
        folder: A finished run folder.
        display: Where progress is shown.
        objects: `space`, `task`, `target` if the run was given objects instead of names.

    Raises:
        StateError: The run is not finished, or a file of it is missing.
    """
    display = display or Silent()
    result = read_json(folder / "result.json")
    parts = assemble(read_config(folder / "config.toml"), **(objects or {}))
    entries = networks_of(result)
    same = _first_with_the_file(entries)
    subjects = {role: _subject(parts, folder, entries[role]) for role in dict.fromkeys(same.values())}
    display.stage("Timing the exported files")
    times = latencies(
        subjects,
        Estimate(**entries["reference"]["latency_ms"]),
        parts.verification.effort,
        show=lambda done, total: display.bar(done, total, "interleaved rounds"),
        say=display.say,
    )
    display.stage("Testing the exported files")
    found = {}
    for number, (role, subject) in enumerate(subjects.items()):
        display.bar(number, len(subjects), "accuracy on the target")
        found[role] = {**_again(parts, entries[role], subject.open()), "latency_ms": times[role].as_dict()}
    display.bar(1, 1, "accuracy on the target")
    now = {role: found[first] for role, first in same.items()}
    checks = [check for role, entry in entries.items() for check in _checks(role, entry, now[role])]
    judged = [judge(now[f"winner_{i}"], point["budget"]) for i, point in enumerate(result["curve"])]
    return Verification(tuple(checks), tuple(s for _, s in judged), tuple(v for v, _ in judged), now)


def networks_of(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Role -> network entry of a `result.json`."""
    entries: dict[str, Mapping[str, Any]] = {"reference": result["reference"]}
    for i, point in enumerate(result["curve"]):
        entries[f"winner_{i}"] = point["winner"]
        for kind in ("uniform", "searched"):
            if point.get(kind) is not None:
                entries[f"{kind}_{i}"] = point[kind]
    return entries


def _first_with_the_file(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Role -> the first role with the same file, so that a winner which is the uniform network is measured once."""
    first: dict[Any, str] = {}
    return {role: first.setdefault((entry.get("export") or {}).get("file"), role) for role, entry in entries.items()}


def _subject(parts: Parts, folder: Path, entry: Mapping[str, Any]) -> Subject:
    file = (entry.get("export") or {}).get("file")
    if not file or not (folder / file).exists():
        raise StateError(f"{folder / str(file)} is missing; run the fit again in a new folder")
    return Subject.of_file(parts.target, folder / file, parts.task.example)


def _again(parts: Parts, entry: Mapping[str, Any], session: Session) -> dict[str, Any]:
    module = parts.build(tuple(entry["arch"]), "count")
    macs, params = macs_params(module, parts.task.example)
    accuracy, count = session_accuracy(session, parts.task)
    return {"macs": macs, "params": params, "memory_bytes": entry["memory_bytes"], "accuracy": accuracy, "count": count}


def session_accuracy(session: Session, task: Task) -> tuple[float, int]:
    """First metric of the task on its test split, computed with a target's session, and the number of examples."""
    metric = next(iter(task.metrics.values()))()
    count = 0
    for x, y in task.test():
        # one by one: a session may be fixed to the example's batch
        logits = torch.cat([session(row[None]) for row in x])
        metric.update(logits, y)
        count += len(y)
    return float(metric.compute()), count


def _checks(role: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Check]:
    low, high = accuracy_interval(then["accuracy"], now["count"])
    old, new = Estimate(**then["latency_ms"]), Estimate(**now["latency_ms"])
    apart = max(old.low / new.high, new.low / old.high) - 1
    return [
        Check(role, "latency", _ms(old), _ms(new), apart <= TOLERANCE),
        Check(role, "accuracy", f"{then['accuracy']:.4f}", f"{now['accuracy']:.4f}", low <= now["accuracy"] <= high),
        Check(role, "MACs", str(then["macs"]), str(now["macs"]), then["macs"] == now["macs"]),
        Check(role, "parameters", str(then["params"]), str(now["params"]), then["params"] == now["params"]),
    ]


def _ms(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ms ({estimate.low:.3f}-{estimate.high:.3f})"

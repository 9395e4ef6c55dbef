"""Measure everything in a `result.json` again, from the exported files, and say whether it still holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from sartor import training
from sartor.core import trees
from sartor.core.contracts import Session
from sartor.core.errors import StateError
from sartor.core.metrics import Metric, Score
from sartor.core.records import Estimate
from sartor.exporting.weights_file import load_own
from sartor.jobs.fit.assemble import Objects, Parts, assemble
from sartor.jobs.fit.verify import judge, latencies
from sartor.networks import macs_params
from sartor.run.folder import read_config
from sartor.run.progress import Display, Silent
from sartor.run.result import Entry, Result, read_result
from sartor.timing.meter import Subject

TOLERANCE = 0.03
"""By how much a latency may differ from the one in the result beyond both intervals."""

CLOSE = 1e-3
"""By how much a value may differ at least, relative: a target rounds differently than PyTorch."""


@dataclass(frozen=True)
class Check:
    """One number of one network, then and now."""

    network: str
    what: str
    then: str
    now: str
    holds: bool


@dataclass(frozen=True)
class Again:
    """What is measured of one network now."""

    latency: Estimate
    macs: int
    params: int
    scores: Mapping[str, Score]


@dataclass(frozen=True)
class Verification:
    """All checks, and the verdicts against the budget as measured now."""

    checks: tuple[Check, ...]
    sentences: tuple[str, ...]
    verdicts: tuple[str, ...]
    networks: Mapping[str, Again]

    @property
    def holds(self) -> bool:
        """Whether every number is confirmed and every budget met."""
        return all(c.holds for c in self.checks) and all(v == "PASS" for v in self.verdicts)


def verify(folder: Path, *, display: Display | None = None, objects: Objects | None = None) -> Verification:
    """Time, count and test the networks of a finished run again.

    Latencies are ratios to the reference, timed in the same rounds, in the milliseconds that the run fixed for it:
    so a machine that is busier or slower today changes nothing. Quality is that of the exported file on the target.

    Args:
        folder: A finished run folder.
        display: Where progress is shown.
        objects: `space`, `task`, `target` if the run was given objects instead of names.

    Raises:
        StateError: The run is not finished, or a file of it is missing or not the one that was delivered.
    """
    display = display or Silent()
    result = read_result(folder)
    result.check(folder)
    parts = assemble(read_config(folder / "config.toml"), **(objects or Objects()))
    entries = result.networks
    subjects = {role: _subject(parts, folder, entry) for role, entry in entries.items()}
    display.stage("Timing the exported files")
    times = latencies(
        subjects,
        result.reference.latency_ms,
        parts.verification.effort,
        show=lambda done, total: display.bar(done, total, "interleaved rounds"),
        say=display.say,
    )
    display.stage("Testing the exported files")
    now = {}
    for number, (role, subject) in enumerate(subjects.items()):
        display.bar(number, len(subjects), f"{result.metric.name} on the target")
        now[role] = _again(parts, entries[role], subject.open(), folder, times[role])
    display.bar(1, 1, f"{result.metric.name} on the target")
    checks = [c for role, entry in entries.items() for c in _checks(role, entry, now[role], result)]
    judged = [
        judge(_as_now(point.winner, now[f"{point.delivered}_{i}"]), point.budget)
        for i, point in enumerate(result.points)
    ]
    return Verification(tuple(checks), tuple(s for _, s in judged), tuple(v for v, _ in judged), now)


def _subject(parts: Parts, folder: Path, entry: Entry) -> Subject:
    if entry.file is None or not (folder / entry.file).exists():
        raise StateError(f"{folder / str(entry.file)} is missing; run the fit again in a new folder")
    return Subject.of_file(parts.target, folder / entry.file, parts.task.example)


def _again(parts: Parts, entry: Entry, session: Session, folder: Path, latency: Estimate) -> Again:
    module = parts.build(entry.arch, "count")
    macs, params = macs_params(module, parts.task.example)
    if _fits_session(parts):
        scores = training.score_outputs(session, parts.task.test(), parts.task)
    else:  # pictures of other sizes than the exported network takes: its weights are what can be tested
        load_own(module, folder / entry.weights)
        scores = training.score(module, parts.task.test(), parts.task)
    return Again(latency, macs, params, scores)


def _fits_session(parts: Parts) -> bool:
    """Whether the inputs of the test split have the example's shape, to which a session may be fixed."""
    shape = trees.shapes(parts.task.example)
    return all(trees.shapes(trees.rows(x, slice(0, 1))) == shape for x, _ in parts.task.test())


def _as_now(entry: Entry, now: Again) -> Entry:
    return replace(entry, latency_ms=now.latency, macs=now.macs, params=now.params)


def _scale(result: Result, metric: str) -> float:
    """How large its values are in this run: a perfect copy has an error of 0, of which nothing is a share."""
    return median(abs(entry.scores[metric].value) for entry in result.networks.values())


def _checks(role: str, then: Entry, now: Again, result: Result) -> list[Check]:
    old, new = then.latency_ms, now.latency
    apart = max(old.low / new.high, new.low / old.high) - 1
    return [
        Check(role, "latency", _ms(old), _ms(new), apart <= TOLERANCE),
        *(_quality(role, m, then.scores[m.name], now.scores[m.name], _scale(result, m.name)) for m in result.metrics),
        Check(role, "MACs", str(then.macs), str(now.macs), then.macs == now.macs),
        Check(role, "parameters", str(then.params), str(now.params), then.params == now.params),
    ]


def _quality(role: str, metric: Metric, then: Score, now: Score, scale: float = 0.0) -> Check:
    """A value holds inside the interval of the one before, or close to it: the interval may be a point, or missing."""
    close = CLOSE * max(abs(then.value), abs(now.value), scale)
    inside = then.low is not None and then.high is not None and then.low <= now.value <= then.high
    holds = inside or abs(now.value - then.value) <= close
    return Check(role, metric.name, metric.precise(then.value), metric.precise(now.value), holds)


def _ms(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ms ({estimate.low:.3f}-{estimate.high:.3f})"

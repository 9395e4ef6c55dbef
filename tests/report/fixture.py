"""A synthetic run folder, as a fit leaves it: what the report's tests and a person trying the page use."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from sartor.core.metrics import Metric, Score
from sartor.core.records import Choice, Estimate, Trial
from sartor.run import result as results
from sartor.run.result import (
    Entry,
    LatencyModel,
    Look,
    Moment,
    Point,
    Predicted,
    Result,
    Search,
    Spent,
    Stage,
    Trace,
)

LAYERS = ["stem", *(f"stage{s}.{b}.conv{c}" for s in (1, 2, 3) for b in (0, 1) for c in (1, 2)), "head"]
FULL = [16, *([16] * 4), *([32] * 4), *([64] * 4), 128]
FRACTIONS = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
CHOICES = tuple(
    Choice(n, tuple(max(1, round(w * f)) for f in FRACTIONS), ordered=True) for n, w in zip(LAYERS, FULL, strict=True)
)
ACCURACY = Metric("accuracy", "max", "share", "proportion")
FILES = ("model.onnx", "model.safetensors", "architecture.json", "model.pt2")


def synthetic(cost: str = "latency_ms", budgets: int = 2, seed: int = 0) -> tuple[Result, Trace]:
    """The result and the trace of a run with every part filled in."""
    rng = np.random.default_rng(seed)
    limits = [0.96, 0.7, 0.5, 0.35][:budgets] if cost == "latency_ms" else [12.5e6, 8.0e6, 5.0e6, 3.0e6][:budgets]
    points = tuple(_point(cost, limit, i, rng) for i, limit in enumerate(limits))
    result = Result(
        title="digits on resnet14",
        task="digits",
        metrics=(ACCURACY,),
        reference=_network([6] * len(LAYERS), 1.92, 0.984),
        points=points,
        search=Search("aows", {"epochs": 40, "warmup": 5, "temperature": 0.1}, 121, 1, CHOICES, (ACCURACY.objective,)),
        latency_model=_latency_model(rng) if cost == "latency_ms" else None,
        spent=_spent(),
        environment=_environment(),
    )
    return result, _trace(rng)


def mirrored(result: Result, trace: Trace) -> tuple[Result, Trace]:
    """The same run by minus the accuracy, which is to be made small."""
    metric = Metric("accuracy", "min", "share", "proportion")

    def entry(found: Entry) -> Entry:
        scores = {
            name: Score(-s.value, None if s.high is None else -s.high, None if s.low is None else -s.low, s.examples)
            for name, s in found.scores.items()
        }
        return replace(found, scores=scores, valid={n: -v for n, v in found.valid.items()})

    points = tuple(
        replace(p, searched=entry(p.searched), uniform=None if p.uniform is None else entry(p.uniform))
        for p in result.points
    )
    trials = tuple(replace(t, metrics={**t.metrics, "accuracy": -t.metrics["accuracy"]}) for t in trace.trials)
    changed = replace(result, metrics=(metric,), reference=entry(result.reference), points=points)
    return changed, replace(trace, trials=trials)


def outdone(result: Result, i: int = 0) -> Result:
    """`result` with the uniformly scaled network as the winner of point `i`, by scores that are exchanged."""
    point = result.points[i]
    assert point.uniform is not None
    changed = replace(
        point,
        delivered="uniform",
        searched=replace(point.searched, scores=point.uniform.scores),
        uniform=replace(point.uniform, scores=point.searched.scores),
        reason="on the validation split it is better than the search's (98.33 % against 96.11 %)",
    )
    return replace(result, points=(*result.points[:i], changed, *result.points[i + 1 :]))


def write_run(folder: Path, *, scaled_wins: bool = False, cost: str = "latency_ms", budgets: int = 2) -> Path:
    """A run folder with `result.json`, a journal, and stand-ins for the files of the winner."""
    result, trace = synthetic(cost, budgets)
    return store(folder, outdone(result) if scaled_wins else result, trace)


def store(folder: Path, result: Result, trace: Trace) -> Path:
    """Write what a finished fit leaves."""
    (folder / "search" / "artifacts").mkdir(parents=True, exist_ok=True)
    results.write(folder, result)
    records = [{"kind": "log", **log} for log in trace.logs]
    records += [
        {
            "kind": "trial",
            "index": t.index,
            "arch": list(t.arch),
            "fidelity": t.fidelity,
            "metrics": t.metrics,
            "error": t.error,
        }
        for t in trace.trials
    ]
    lines = "".join(json.dumps(r) + "\n" for r in records)
    (folder / "search" / "journal.jsonl").write_text(lines)
    rows = "".join(json.dumps({"epoch": m.epoch, "probabilities": m.probabilities}) + "\n" for m in trace.narrowing)
    (folder / "search" / "artifacts" / "narrowing.jsonl").write_text(rows)
    for point in result.points:
        where = folder / point.folder
        where.mkdir(exist_ok=True)
        for name in FILES:
            (where / name).write_bytes(b"stand-in")
    return folder


def _network(arch: list[int], latency: float, accuracy: float) -> Entry:
    share = (sum(FRACTIONS[a] for a in arch) / len(arch)) ** 2
    half = 1.96 * math.sqrt(accuracy * (1 - accuracy) / 1800)
    return Entry(
        arch=tuple(arch),
        options={c.name: c.options[a] for c, a in zip(CHOICES, arch, strict=True)},
        macs=int(26.1e6 * share),
        params=int(175_000 * share),
        memory_bytes=int(1.2e6 * math.sqrt(share)),
        latency_ms=Estimate(latency, latency * 0.99, latency * 1.012),
        weights="artifacts/x.safetensors",
        predicted_latency_ms=latency * 1.015,
        scores={"accuracy": Score(accuracy, accuracy - half, min(1.0, accuracy + half), 1800)},
        valid={"accuracy": accuracy},
        file="artifacts/x/model.onnx",
        relative_error=1e-6,
    )


def _point(cost: str, limit: float, i: int, rng: np.random.Generator) -> Point:
    level = 4 - i
    arch = [int(np.clip(level + rng.integers(-2, 3), 0, 6)) for _ in CHOICES]
    latency = (limit if cost == "latency_ms" else 0.96 * limit / 12.5e6) * 0.98
    winner = _network(arch, latency, 0.981 - 0.006 * i)
    uniform = _network([level] * len(CHOICES), latency * 1.003, 0.962 - 0.018 * i)
    if cost == "macs":
        winner, uniform = replace(winner, macs=int(0.97 * limit)), replace(uniform, macs=int(0.98 * limit))
    sentence = (
        f"PASS: {latency:.2f} ms ({latency * 0.99:.2f}-{latency * 1.012:.2f}) <= {limit} ms"
        if cost == "latency_ms"
        else f"PASS: {winner.macs / 1e6:.1f} M <= {limit / 1e6:.1f} M"
    )
    over = Estimate(limit * 1.02, limit * 1.01, limit * 1.03)
    looks = ()
    if i == 0 and cost == "latency_ms":
        looks = (Look(tuple(arch), limit, limit, over), Look(tuple(arch), limit * 0.97, limit, winner.latency_ms))
    return Point(
        budget={cost: limit},
        delivered="searched",
        searched=winner,
        uniform=uniform,
        reason="",
        verdict="PASS",
        sentence=sentence,
        looks=looks,
        folder=f"budget_{i}",
    )


def _latency_model(rng: np.random.Generator) -> LatencyModel:
    measured = rng.uniform(0.3, 1.9, 40)
    heldout = tuple(
        Predicted(float(m * rng.normal(1, 0.02)), Estimate(float(m), float(m * 0.98), float(m * 1.03)))
        for m in measured
    )
    return LatencyModel("combined", 0.021, 120, 40, heldout)


def _trace(rng: np.random.Generator) -> Trace:
    logs = tuple(
        {
            "step": e,
            "epoch": e,
            "loss": 2.2 * math.exp(-e / 9) + 0.12,
            "accuracy": 0.955 * (1 - math.exp(-e / 7)),
            "latency_ms": 0.96,
        }
        for e in range(1, 41)
    )
    peaks = rng.integers(1, 6, len(CHOICES))
    narrowing = tuple(
        Moment(e, tuple(_softmax([-(e / 12) * abs(k - p) for k in range(len(FRACTIONS))]) for p in peaks))
        for e in (5, 10, 15, 20, 25, 30, 35, 40)
    )
    trials = []
    for i in range(120):
        arch = tuple(rng.integers(0, 7, len(CHOICES)).tolist())
        share = (sum(FRACTIONS[a] for a in arch) / len(arch)) ** 2
        accuracy = float(np.clip(0.9 + 0.06 * share + rng.normal(0, 0.008), 0, 1))
        trials.append(Trial(i, arch, 1.0, {"accuracy": accuracy, "latency_ms": 1.92 * share, "macs": 26.1e6 * share}))
    failed = {"accuracy": 0.99, "latency_ms": 0.5, "macs": 1e6}
    trials.append(Trial(120, trials[0].arch, 1.0, failed, "DivergedError: loss is nan"))
    return Trace(tuple(trials), logs, narrowing)


def _softmax(logits: list[float]) -> tuple[float, ...]:
    weights = [math.exp(v) for v in logits]
    return tuple(w / sum(weights) for w in weights)


def _spent() -> Spent:
    stages = (
        Stage("reference", 20.1, 1, 1),
        Stage("latency model", 95.4, 0, 160),
        Stage("search", 412.0, 1, 0),
        Stage("winners", 44.0, 2, 0),
        Stage("uniform", 41.5, 2, 0),
        Stage("verify", 18.2, 0, 5),
    )
    return Spent(stages, sum(s.seconds for s in stages), 640.2)


def _environment() -> dict[str, object]:
    return {
        "sartor": "0.1.0",
        "python": "3.11.2",
        "torch": "2.14.1",
        "processor": "a processor with 2 cores",
        "threads": 1,
        "data": {"name": "digits", "fingerprint": "5f2c9b0e41aa", "train": 1257, "valid": 180, "test": 1800},
        "seed": 0,
        "command": "sartor fit",
        "target": {"name": "onnxruntime", "version": "1.23.0", "threads": "1"},
        "load_average": 0.42,
    }

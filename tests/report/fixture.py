"""A synthetic run folder, as a fit leaves it: what the report's tests and a person trying the page use."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

LAYERS = ["stem", *(f"stage{s}.{b}.conv{c}" for s in (1, 2, 3) for b in (0, 1) for c in (1, 2)), "head"]
FULL = [16, *([16] * 4), *([32] * 4), *([64] * 4), 128]
FRACTIONS = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)


def synthetic(metric: str = "latency_ms", budgets: int = 2, seed: int = 0) -> dict[str, Any]:
    """A decoded result.json with every part filled in."""
    rng = np.random.default_rng(seed)
    choices = [
        {"name": n, "options": [max(1, round(w * f)) for f in FRACTIONS]} for n, w in zip(LAYERS, FULL, strict=True)
    ]
    limits = [0.96, 0.7, 0.5, 0.35][:budgets] if metric == "latency_ms" else [12.5e6, 8.0e6, 5.0e6, 3.0e6][:budgets]
    curve = [_entry(metric, limit, i, choices, rng) for i, limit in enumerate(limits)]
    first = curve[0]
    return {
        "title": "digits on resnet14",
        "reference": _network([6] * len(LAYERS), choices, 1.92, 0.984),
        "budget": {metric: limits},
        "winner": first["winner"],
        "uniform": first["uniform"],
        "verdict": first["verdict"],
        "curve": curve,
        "latency_model": _latency_model(rng) if metric == "latency_ms" else None,
        "search": _search(choices, rng),
        "ledger": _ledger(),
        "environment": _environment(),
    }


def outdone(result: dict[str, Any], i: int = 0) -> dict[str, Any]:
    """`result` with the uniformly scaled network as the winner of budget `i`, by accuracies that are exchanged."""
    point = result["curve"][i]
    accuracies = ("accuracy", "accuracy_interval")
    better, worse = ({k: point[role][k] for k in accuracies} for role in ("winner", "uniform"))
    point["searched"] = {**point["winner"], **worse}
    point["winner"] = point["uniform"] = {**point["uniform"], **better}
    point["reason"] = "on the validation split it is better than the search's (98.33 against 96.11 %)"
    return {**result, **{k: result["curve"][0].get(k) for k in ("winner", "uniform", "searched")}}


def write_run(folder: Path, *, scaled_wins: bool = False, **settings: Any) -> Path:
    """A run folder with `result.json` and stand-ins for the files of the winner."""
    folder.mkdir(parents=True, exist_ok=True)
    result = outdone(synthetic(**settings)) if scaled_wins else synthetic(**settings)
    (folder / "result.json").write_text(json.dumps(result))
    for entry in result["curve"]:
        where = folder / entry["folder"]
        where.mkdir(exist_ok=True)
        for name in ("model.onnx", "model.safetensors", "architecture.json", "model.pt2"):
            (where / name).write_bytes(b"stand-in")
    return folder


def _network(arch: list[int], choices: list[dict[str, Any]], latency: float, accuracy: float) -> dict[str, Any]:
    share = (sum(FRACTIONS[a] for a in arch) / len(arch)) ** 2
    half = 1.96 * math.sqrt(accuracy * (1 - accuracy) / 1800)
    return {
        "accuracy": accuracy,
        "accuracy_interval": {"low": accuracy - half, "high": min(1.0, accuracy + half)},
        "accuracy_on": "test",
        "latency_ms": {"value": latency, "low": latency * 0.99, "high": latency * 1.012},
        "macs": int(26.1e6 * share),
        "params": int(175_000 * share),
        "memory_bytes": int(1.2e6 * math.sqrt(share)),
        "arch": arch,
        "widths": {c["name"]: c["options"][a] for c, a in zip(choices, arch, strict=True)},
        "predicted_latency_ms": latency * 1.015,
    }


def _entry(
    metric: str, limit: float, i: int, choices: list[dict[str, Any]], rng: np.random.Generator
) -> dict[str, Any]:
    level = 4 - i
    arch = [int(np.clip(level + rng.integers(-2, 3), 0, 6)) for _ in choices]
    latency = (limit if metric == "latency_ms" else 0.96 * limit / 12.5e6) * 0.98
    winner = _network(arch, choices, latency, 0.981 - 0.006 * i)
    uniform = _network([level] * len(choices), choices, latency * 1.003, 0.962 - 0.018 * i)
    if metric == "macs":
        winner["macs"], uniform["macs"] = int(0.97 * limit), int(0.98 * limit)
    sentence = (
        f"PASS: {latency:.2f} ms ({latency * 0.99:.2f}-{latency * 1.012:.2f}) <= {limit} ms"
        if metric == "latency_ms"
        else f"PASS: {winner['macs'] / 1e6:.1f} M <= {limit / 1e6:.1f} M"
    )
    over = {"value": limit * 1.02, "low": limit * 1.01, "high": limit * 1.03}
    return {
        "budget": {metric: limit},
        "winner": winner,
        "uniform": uniform,
        "verdict": "PASS",
        "sentence": sentence,
        "tightened": [{"limit": limit * 0.97, "measured": over}] if i == 0 and metric == "latency_ms" else [],
        "folder": f"budget_{i}",
    }


def _latency_model(rng: np.random.Generator) -> dict[str, Any]:
    measured = rng.uniform(0.3, 1.9, 40)
    heldout = [
        {
            "predicted": float(m * rng.normal(1, 0.02)),
            "measured": float(m),
            "low": float(m * 0.98),
            "high": float(m * 1.03),
        }
        for m in measured
    ]
    return {
        "nrmse": 0.021,
        "mape": 0.017,
        "kind": "combined",
        "training_networks": 120,
        "heldout_networks": 40,
        "heldout": heldout,
        "models": {"macs": 0.142, "table": 0.081, "fitted": 0.034, "combined": 0.021},
    }


def _search(choices: list[dict[str, Any]], rng: np.random.Generator) -> dict[str, Any]:
    epochs = range(1, 41)
    history = [
        {
            "epoch": e,
            "loss": 2.2 * math.exp(-e / 9) + 0.12,
            "accuracy": 0.955 * (1 - math.exp(-e / 7)),
            "latency_ms": 0.96,
        }
        for e in epochs
    ]
    peaks = rng.integers(1, 6, len(choices))
    narrowing = [
        {
            "epoch": e,
            "probabilities": [_softmax([-(e / 12) * abs(k - p) for k in range(len(FRACTIONS))]) for p in peaks],
        }
        for e in (5, 10, 15, 20, 25, 30, 35, 40)
    ]
    trials: list[dict[str, Any]] = []
    for _ in range(120):
        arch = rng.integers(0, 7, len(choices)).tolist()
        share = (sum(FRACTIONS[a] for a in arch) / len(arch)) ** 2
        accuracy = float(np.clip(0.9 + 0.06 * share + rng.normal(0, 0.008), 0, 1))
        trials.append(
            {"arch": arch, "accuracy": accuracy, "latency_ms": 1.92 * share, "macs": 26.1e6 * share, "error": None}
        )
    trials.append(
        {"arch": trials[0]["arch"], "accuracy": 0.99, "latency_ms": 0.5, "error": "DivergedError: loss is nan"}
    )
    return {
        "strategy": "aows",
        "settings": {"epochs": 40, "warmup": 5, "temperature": 0.1},
        "evaluations": 121,
        "history": history,
        "narrowing": narrowing,
        "choices": choices,
        "trials": trials,
    }


def _softmax(logits: list[float]) -> list[float]:
    weights = [math.exp(v) for v in logits]
    return [w / sum(weights) for w in weights]


def _ledger() -> dict[str, Any]:
    stages = [
        ("reference", 20.1, 1, 1),
        ("latency model", 95.4, 0, 160),
        ("search", 412.0, 1, 0),
        ("winners", 44.0, 2, 0),
        ("uniform", 41.5, 2, 0),
        ("verify", 18.2, 0, 5),
    ]
    listed = [{"name": n, "seconds": s, "networks_trained": t, "networks_measured": m} for n, s, t, m in stages]
    return {"stages": listed, "total_seconds": sum(s for _, s, _, _ in stages), "wall_seconds": 640.2}


def _environment() -> dict[str, Any]:
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

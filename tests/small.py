"""Small, real jobs for the tests of `jobs` and `cli`: seconds, yet every stage happens."""

from __future__ import annotations

from typing import Any


def settings(**changes: Any) -> dict[str, Any]:
    """A config of a few seconds with a budget in MACs; `changes` replace whole tables."""
    config: dict[str, Any] = {
        "seed": 0,
        "title": "a small fit",
        "space": {"name": "tiny", "widths": [4, 8, 12, 16]},
        "task": {"name": "digits", "size": 8, "batch": 128},
        "target": {"name": "torch_cpu"},
        "budget": {"macs": "50%"},
        "strategy": {"name": "ows", "epochs": 2},
        "training": {"epochs": 2, "lr": 0.1},
        "latency_model": {"networks": 12, "heldout": 4, "sweeps": 2, "rounds": 3},
        "verification": {"rounds": 10, "sessions": 2, "processes": 1},
    }
    return {**config, **changes}


def latency_settings(**changes: Any) -> dict[str, Any]:
    """The same with a generous budget in milliseconds on ONNX Runtime, and widths that matter for the time."""
    config = settings(
        space={"name": "tiny", "widths": [8, 32, 64, 128]},
        task={"name": "digits", "size": 16, "batch": 128},
        target={"name": "onnxruntime"},
        budget={"latency_ms": "70%"},
        strategy={"name": "uniform_width"},
        training={"epochs": 1, "lr": 0.1},
    )
    return {**config, **changes}

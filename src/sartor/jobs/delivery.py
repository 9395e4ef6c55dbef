"""What a user takes away: the exported file, plain weights, the architecture in words, the facts of the run."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from sartor.core import state
from sartor.jobs.parts import Parts
from sartor.jobs.stages import Chosen, Job
from sartor.timing.machine import machine

PACKAGES = ("sartor", "torch", "torchvision", "numpy", "scipy", "scikit-learn", "onnx", "onnxruntime", "openvino")


def deliver(job: Job, chosen: Chosen, entry: Mapping[str, Any], folder: Path) -> None:
    """Put the winner's files into `folder`: all that is needed without sartor.

    `model.safetensors` (the state dict), `model.pt2` (a program for `torch.export.load`), `architecture.json` (widths
    in words), and the target's own file (`model.onnx`, ...).
    """
    folder.mkdir(exist_ok=True)
    shutil.copy(job.weights(chosen.name), folder / "model.safetensors")
    file = entry["export"]["file"]
    if file is not None:
        source = job.folder.path / file
        shutil.copy(source, folder / f"model{source.suffix}")
    program = torch.export.export(job.load(chosen), (job.parts.task.example,))
    state.atomically(folder / "model.pt2", lambda part: _save_program(program, part))
    words = {
        "space": dict(job.parts.config["space"]),
        "arch": list(chosen.arch),
        "widths": entry["widths"],
        "input_shape": list(job.parts.task.example.shape),
        "classes": job.parts.task.classes,
        "macs": entry["macs"],
        "params": entry["params"],
    }
    text = json.dumps(words, indent=1) + "\n"
    state.atomically(folder / "architecture.json", lambda part: part.write_text(text, encoding="utf-8"))


def _save_program(program: Any, part: Path) -> None:
    with part.open("wb") as file:  # a path must end with .pt2, a file object need not
        torch.export.save(program, file)


def environment(parts: Parts, command: str) -> dict[str, Any]:
    """Whatever somebody needs to judge or repeat the run."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        **versions,
        **machine(),
        "python": platform.python_version(),
        "training_threads": torch.get_num_threads(),
        "threads": int(parts.target.describe().get("threads", torch.get_num_threads())),
        "target": dict(parts.target.describe()),
        "data": {
            "name": parts.config["task"].get("name", ""),
            "fingerprint": parts.task.fingerprint,
            **dict(parts.task.describe or {}),
        },
        "seed": parts.seed,
        "command": command,
    }

"""What a user takes away: the exported file, plain weights, the architecture in words, the facts of the run."""

from __future__ import annotations

import json
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from sartor import exporting
from sartor.core import files, trees
from sartor.jobs.fit.assemble import Parts
from sartor.jobs.fit.stage import Chosen, Job
from sartor.run.result import Entry
from sartor.timing.machine import machine

PACKAGES = ("sartor", "torch", "torchvision", "numpy", "scipy", "scikit-learn", "onnx", "onnxruntime", "openvino")


def deliver(job: Job, entry: Entry, folder: Path) -> None:
    """Put the winner's files into `folder`: all that is needed without sartor.

    `model.safetensors` (the state dict), `model.pt2` (a program for `torch.export.load`), `architecture.json` (widths
    in words), and the target's own file (`model.onnx`, ...).
    """
    folder.mkdir(exist_ok=True)
    weights = job.folder.path / entry.weights
    shutil.copy(weights, folder / "model.safetensors")
    if entry.file is not None:
        source = job.folder.path / entry.file
        shutil.copy(source, folder / f"model{source.suffix}")
    example = job.parts.task.example
    module = job.load(Chosen(weights.stem, entry.arch))
    files.atomically(folder / "model.pt2", lambda part: exporting.export_pt2(module, example, part))
    words = {
        "space": dict(job.parts.config["space"]),
        "arch": list(entry.arch),
        "options": dict(entry.options),
        "inputs": {name: list(t.shape) for name, t in trees.named(example, "input").items()},
        "classes": job.parts.task.classes,
        "macs": entry.macs,
        "params": entry.params,
    }
    text = json.dumps(words, indent=1) + "\n"
    files.atomically(folder / "architecture.json", lambda part: part.write_text(text, encoding="utf-8"))


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

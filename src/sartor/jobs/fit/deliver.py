"""What a user takes away: the exported file, plain weights, the architecture in words, the facts of the run."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from sartor import exporting
from sartor.core import files, trees
from sartor.core.errors import TargetError
from sartor.core.records import ExportSettings
from sartor.jobs.fit.assemble import Parts
from sartor.jobs.fit.stage import Chosen, Job
from sartor.run.result import Entry, Point
from sartor.timing.machine import machine

PACKAGES = ("sartor", "torch", "torchvision", "numpy", "scipy", "scikit-learn", "onnx", "onnxruntime", "openvino")


def deliver(job: Job, entry: Entry, folder: Path) -> None:
    """Put the winner's files into `folder`: all that is needed without sartor.

    `model.safetensors` (the state dict), `model.pt2` (a program for `torch.export.load`), `architecture.json` (widths
    in words), and the target's own file (`model.onnx`, ...), which is the one that was timed.
    """
    folder.mkdir(exist_ok=True)
    weights = job.folder.path / entry.weights
    shutil.copy(weights, folder / "model.safetensors")
    sources = [program(job, entry), *([] if entry.file is None else [job.folder.path / entry.file])]
    for source in filter(None, sources):
        for part in source.parent.glob(f"{source.name}*"):  # weights above 2 GB lie in a file of their own beside it
            shutil.copy(part, folder / part.name.replace(source.stem, "model", 1))
    words = {
        "space": dict(job.parts.config["space"]),
        "arch": list(entry.arch),
        "options": dict(entry.options),
        "inputs": {name: list(t.shape) for name, t in trees.named(job.parts.task.example, "input").items()},
        "classes": job.parts.task.classes,
        "macs": entry.macs,
        "params": entry.params,
    }
    text = json.dumps(words, indent=1) + "\n"
    files.atomically(folder / "architecture.json", lambda part: part.write_text(text, encoding="utf-8"))


def program(job: Job, entry: Entry) -> Path | None:
    """The network's `.pt2` file, tried like the target's: that one itself, or one that is written once per run.

    Returns:
        None if there can be no such file, which is said: the target's own is there.
    """
    if entry.file is not None and entry.file.endswith(".pt2"):
        return job.folder.path / entry.file
    weights, parts = job.folder.path / entry.weights, job.parts
    path = job.folder.artifacts / weights.stem / "model.pt2"
    if path.exists():
        return path
    path.parent.mkdir(exist_ok=True)
    module, example = job.load(Chosen(weights.stem, entry.arch)), parts.task.example
    draft = path.with_name("draft.pt2")

    def write(settings: ExportSettings) -> exporting.Program:
        signature = exporting.export_pt2(module, example, draft, settings)
        return exporting.load_pt2(draft).giving(signature.tree)

    try:
        found = exporting.written(write, module, example, parts.export, file=path.name)
    except TargetError as error:
        draft.unlink(missing_ok=True)
        job.display.say(f"  no {path.name}: {error}")
        return None
    if found.note:
        job.display.say(f"  {found.note}")
    files.atomically(path, draft.replace)
    return path


def digests(folder: Path, points: Sequence[Point], networks: Iterable[Entry]) -> dict[str, str]:
    """SHA-256 of all that was delivered for any point, of all files that were timed, and of all weights, by path."""
    places = dict.fromkeys([".", *(point.folder for point in points)])
    paths = [path for place in places for path in sorted((folder / place).glob("model.*"))]
    paths += [folder / place / "architecture.json" for place in places]
    paths += [folder / name for entry in networks for name in (entry.weights, entry.file) if name is not None]
    return {str(path.relative_to(folder)): files.sha256(path) for path in dict.fromkeys(paths)}


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

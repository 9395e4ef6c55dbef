"""What a user takes away: the exported file, plain weights, the architecture in words, the facts of the run."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from sartor import exporting
from sartor.core import files, trees
from sartor.core.errors import StateError, TargetError
from sartor.core.records import ExportSettings
from sartor.jobs.fit.assemble import Parts
from sartor.jobs.fit.stage import Chosen, Job
from sartor.run.progress import Display
from sartor.run.result import Entry, Point, Result
from sartor.run.schema import encode
from sartor.timing.machine import machine

_WORDS = "architecture.json"
PACKAGES = ("sartor", "torch", "torchvision", "numpy", "scipy", "scikit-learn", "onnx", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Program:
    """Whether a network has a `.pt2` file beside the target's own."""

    there: bool


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
    text = _in_words(job.parts, entry)
    files.atomically(folder / _WORDS, lambda part: part.write_text(text, encoding="utf-8"))


def _in_words(parts: Parts, entry: Entry) -> str:
    """The content of `architecture.json`."""
    words = {
        "space": dict(parts.config["space"]),
        "arch": list(entry.arch),
        "options": dict(entry.options),
        "inputs": {name: list(t.shape) for name, t in trees.named(parts.task.example, "input").items()},
        "classes": parts.task.classes,
        "macs": entry.macs,
        "params": entry.params,
    }
    return json.dumps(words, indent=1) + "\n"


def look_after(parts: Parts, folder: Path, result: Result, display: Display) -> None:
    """See to it that a finished run has the files that it has delivered; a missing one comes back from its twin.

    A twin has the SHA-256 that was delivered, so that nothing else can come back. A file that is another one now stays
    as it is: somebody may have put it there.

    Raises:
        StateError: One is not what it was, or is missing and has no twin.
    """
    wrong = result.changed(folder)
    for name in [name for name in wrong if not (folder / name).exists()]:
        if _restored(parts, folder, result, name):
            display.say(f"  {folder / name} was missing and is there again")
            del wrong[name]
    for name, how in wrong.items():
        if (folder / name).exists() and (name.endswith(_WORDS) or _twin(folder, result, name) is not None):
            raise StateError(f"{folder / name} {how}; remove it and give the same command again, which brings it back")
    if wrong:
        result.check(folder, wrong)


def _restored(parts: Parts, folder: Path, result: Result, name: str) -> bool:
    """Whether a missing file could be made again as it was."""
    twin, path = _twin(folder, result, name), folder / name
    if twin is not None:
        files.atomically(path, lambda part: shutil.copyfile(twin, part))
        return True
    if not name.endswith(_WORDS):
        return False
    at = str(Path(name).parent)
    point = next((p for p in result.points if p.folder == at), result.points[0])
    text = _in_words(parts, point.winner)
    if hashlib.sha256(text.encode()).hexdigest() != result.files[name]:
        return False
    files.atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
    return True


def _twin(folder: Path, result: Result, name: str) -> Path | None:
    """Another file of the run with the same content as a delivered one had."""
    places = [*(folder / other for other in result.files), *sorted((folder / "artifacts").rglob("*"))]
    return next((p for p in places if p.is_file() and files.sha256(p) == result.files[name]), None)


def program(job: Job, entry: Entry) -> Path | None:
    """The network's `.pt2` file, tried like the target's: that one itself, or one that is written once per run.

    Returns:
        None if there can be no such file, which is said: the target's own is there.
    """
    if entry.file is not None and entry.file.endswith(".pt2"):
        return job.folder.path / entry.file
    name = Path(entry.weights).stem
    path, stage = job.folder.artifacts / name / "model.pt2", f"program.{name}"
    known = job.done(stage, Program)
    if known is None:
        job.folder.begin_stage(stage)
        known = Program(_written(job, Chosen(name, entry.arch), path))
        job.folder.end_stage(stage, encode(known))
    return path if known.there else None


def _written(job: Job, chosen: Chosen, path: Path) -> bool:
    """Whether the `.pt2` file of a network could be written."""
    path.parent.mkdir(exist_ok=True)
    parts = job.parts
    module, example = job.load(chosen), parts.task.example
    draft = path.with_name("draft.pt2")

    def write(settings: ExportSettings) -> exporting.Program:
        signature = exporting.export_pt2(module, example, draft, settings)
        return exporting.load_pt2(draft).giving(signature.tree)

    try:
        found = exporting.written(write, module, example, parts.export, file=path.name)
    except TargetError as error:
        draft.unlink(missing_ok=True)
        job.display.say(f"  no {path.name}: {error}")
        return False
    if found.note:
        job.display.say(f"  {found.note}")
    files.atomically(path, draft.replace)
    return True


def digests(folder: Path, points: Sequence[Point], networks: Iterable[Entry]) -> dict[str, str]:
    """SHA-256 of all that was delivered for any point, of all files that were timed, and of all weights, by path."""
    places = dict.fromkeys([".", *(point.folder for point in points)])
    paths = [path for place in places for path in sorted((folder / place).glob("model.*"))]
    paths += [folder / place / _WORDS for place in places]
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

"""`sartor measure`: what a network takes on a target; and the plan that takes the measuring to another device."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sartor import archs, config, exporting, networks
from sartor.config import Table
from sartor.core import trees
from sartor.core.contracts import Session, Target
from sartor.core.rng import derive, global_seed
from sartor.core.trees import Inputs
from sartor.jobs.fit.assemble import LatencyModelSettings, fitted_to_task
from sartor.jobs.fit.reference import planned
from sartor.latency.samples import write_manifest
from sartor.targets.onnxruntime import OnnxRuntime
from sartor.timing.machine import machine
from sartor.timing.memory import peak_memory
from sartor.timing.meter import Effort, Subject, time_together
from sartor.timing.processes import StrangerError

Show = Callable[[float, float], None]


def measure_network(
    spec: str,
    target: Target,
    inputs: Inputs,
    *,
    rounds: int = 40,
    sessions: int = 5,
    processes: int = 3,
    peak: bool = True,
    show: Show | None = None,
) -> dict[str, Any]:
    """Latency with interval, MACs, parameters and peak memory of one network.

    Args:
        spec: `torchvision:NAME`, `timm:NAME`, `package.module:callable`, or the path of an `.onnx` or `.pt2` file.
        target: Where it runs.
        inputs: Whose shapes, batch first, and types count (`networks.inputs_of`).
        rounds: Interleaved rounds with the yardstick, shared by the processes.
        sessions: Fresh sessions of the network, and of the yardstick, in each process.
        processes: Fresh processes that take part; 1 times in this one.
        peak: Whether to measure peak memory in a process of its own.
        show: Progress.

    Returns:
        `latency_ms` (of one batch, on this machine as it is), `relative` (ratio to the yardstick, which repeats where
        milliseconds do not), `macs` and `params` (null for a file), `uncounted` (what the MACs leave out: each `layer`,
        `operator`, `why`, `macs`, `params`), `memory_bytes`, `target`, `machine`,
        `processes` that took part, and a `note` on why it was this one alone.
    """
    example = networks.lively(inputs, trees.size(inputs), torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory(prefix="sartor-") as folder:
        subject, module = _subject(spec, target, example, Path(folder))
        yard = Subject.prepared(target, yardstick(), _YARD, Path(folder) / "yardstick")
        subjects, effort = {"yardstick": yard, "network": subject}, Effort(rounds, sessions, processes)
        timed = time_together(subjects, effort, reference="yardstick", on_round=show)
        memory = _peak(subject) if peak else None
    counted = networks.counted(module, example) if module is not None else None
    return {
        "network": spec,
        "input": networks.listed(trees.shapes(example)),
        "latency_ms": timed.milliseconds("network").as_dict(),
        "relative": timed.ratio("network").as_dict(),
        "macs": counted.macs if counted is not None else None,
        "params": counted.params if counted is not None else None,
        "uncounted": [entry._asdict() for entry in counted.uncounted] if counted is not None else [],
        "memory_bytes": memory,
        "target": dict(target.describe()),
        "machine": machine(),
        "processes": len(timed.runs),
        "note": timed.note,
    }


_YARD = torch.zeros(1, 16, 32, 32)


def yardstick() -> nn.Module:
    """The network that every other one is timed against: 7.5 MMACs of 3x3 and 1x1 convolutions, always the same."""
    with global_seed(derive(0, "yardstick")):
        return nn.Sequential(
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 1),
            nn.ReLU(),
            nn.Conv2d(64, 16, 1),
        ).eval()


def write_plan(settings_: Table, count: int, folder: Path, *, show: Show | None = None) -> tuple[Path, int]:
    """Write networks of a space as ONNX files with a manifest, to be timed on another device.

    Args:
        settings_: A config with `[space]` and `[task]`.
        count: Training networks; a fifth as many, but at least 10, uniformly random ones are added to test the model.
        folder: Where to.
        show: Progress.

    Returns:
        The manifest, whose `latency_ms` column is to be filled in, and the number of networks.
    """
    task = config.build("tasks", settings_["task"])
    space = config.build("spaces", fitted_to_task(settings_["space"], task))
    seed = int(settings_.get("seed", 0))
    asked = config.call(LatencyModelSettings, settings_.get("latency_model", {}))
    wanted = planned(space, replace(asked, networks=count, heldout=max(10, count // 5)), seed)
    done, current, runtime = 0, folder, OnnxRuntime()

    def written(model: bytes) -> Session:
        current.write_bytes(model)
        return runtime.load(current)

    with global_seed(derive(seed, "plan")):
        widest = space.build(archs.largest(space)).eval()
    template = exporting.OnnxTemplate(widest, task.example, written)  # slices: an export of each would take seconds

    def export(module: nn.Module, path: Path) -> None:
        nonlocal done, current
        current = path
        template(module)
        done += 1
        if show is not None:
            show(done, len(wanted))

    with global_seed(derive(seed, "plan")):
        return write_manifest(folder, space, wanted, export), len(wanted)


def _subject(spec: str, target: Target, example: Inputs, folder: Path) -> tuple[Subject, nn.Module | None]:
    if spec.endswith((".onnx", ".pt2", ".xml")):
        return Subject.of_file(target, Path(spec), example), None
    module = networks.load_network(spec).eval()
    return Subject.prepared(target, module, example, folder / "network"), module


def _peak(subject: Subject) -> int | None:
    if subject.source is None:
        return None
    try:
        return peak_memory(subject.source, subject.inputs)
    except StrangerError:
        return None

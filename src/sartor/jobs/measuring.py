"""`sartor measure`: what a network takes on a target; and the plan that takes the measuring to another device."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sartor import archs, config, exporting, measure, networks
from sartor.core import trees
from sartor.core.contracts import Session, Target
from sartor.core.rng import derive, global_seed
from sartor.core.trees import Inputs
from sartor.jobs.latency import planned
from sartor.jobs.meter import opener
from sartor.jobs.parts import LatencyModelSettings, fitted_to_task
from sartor.latency.samples import write_manifest
from sartor.targets.onnxruntime import OnnxRuntime

Show = Callable[[float, float], None]


def measure_network(
    spec: str,
    target: Target,
    inputs: Inputs,
    *,
    rounds: int = 40,
    sessions: int = 5,
    peak: bool = True,
    show: Show | None = None,
) -> dict[str, Any]:
    """Latency with interval, MACs, parameters and peak memory of one network.

    Args:
        spec: `torchvision:NAME`, `timm:NAME`, `package.module:callable`, or the path of an `.onnx` file.
        target: Where it runs.
        inputs: Whose shapes, batch first, and types count (`networks.inputs_of`).
        rounds: Interleaved rounds with the yardstick.
        sessions: Fresh sessions of the network, and of the yardstick.
        peak: Whether to measure peak memory in a process of its own.
        show: Progress.

    Returns:
        `latency_ms` (of one batch, on this machine as it is), `relative` (ratio to the yardstick, which repeats where
        milliseconds do not), `macs` and `params` (null for a file), `memory_bytes`, `target`, `machine`.
    """
    example = networks.lively(inputs, trees.size(inputs), torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory(prefix="sartor-") as folder:
        make, module = _sessions(spec, target, example, Path(folder))
        make_yard = opener(target, yardstick(), _YARD, Path(folder) / "yardstick")
        calls: measure.Calls = {
            "yardstick": [make_yard().bind(_YARD) for _ in range(sessions)],
            "network": [make().bind(example) for _ in range(sessions)],
        }
        timed = measure.interleave(calls, rounds=rounds, on_round=show)
        memory = _peak(target, make(), tuple(example.shape)) if peak and isinstance(example, Tensor) else None
    counted = networks.macs_params(module, example) if module is not None else (None, None)
    return {
        "network": spec,
        "input": networks.listed(trees.shapes(example)),
        "latency_ms": measure.absolute(timed, "network").as_dict(),
        "relative": measure.ratio(timed, "network", "yardstick").as_dict(),
        "macs": counted[0],
        "params": counted[1],
        "memory_bytes": memory,
        "target": dict(target.describe()),
        "machine": measure.machine(),
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


def write_plan(settings_: Mapping[str, Any], count: int, folder: Path, *, show: Show | None = None) -> tuple[Path, int]:
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


def _sessions(
    spec: str, target: Target, example: Inputs, folder: Path
) -> tuple[Callable[[], Session], nn.Module | None]:
    if spec.endswith((".onnx", ".pt2", ".xml")):
        return (lambda: target.load(Path(spec))), None
    module = networks.load_network(spec).eval()
    return opener(target, module, example, folder / "network"), module


def _peak(target: Target, session: Session, shape: tuple[int, ...]) -> int | None:
    if session.artifact is None:
        return None
    facts = {k: getattr(target, k) for k in config.keywords(type(target)) if hasattr(target, k)}
    name = f"{type(target).__module__}:{type(target).__name__}"
    return measure.peak_memory(name, session.artifact, shape, settings=facts)

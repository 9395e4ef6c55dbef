"""Export a trained network of a finished run for another target, checked against PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from safetensors.torch import load_file

from sartor import config, exporting
from sartor.core import copies
from sartor.core.errors import StateError
from sartor.jobs.fit.assemble import assemble
from sartor.run.folder import read_config
from sartor.run.result import read_result

Role: TypeAlias = Literal["winner", "uniform", "searched", "reference"]


@dataclass(frozen=True)
class Exported:
    """A network on a target.

    Attributes:
        target: Its name.
        file: What a user deploys; None if the target runs the module itself.
        relative_error: Largest difference between its outputs and PyTorch's.
    """

    target: str
    file: str | None
    relative_error: float


def export(folder: Path, target: str, out: Path, *, point: int = 0, network: Role = "winner") -> Exported:
    """Prepare a trained network on `target`.

    Args:
        folder: A finished run folder.
        target: Name of a target.
        out: Folder for its files.
        point: Which point of the budget, counted from 0.
        network: The winner, the uniformly scaled network, the search's own, or the reference.

    Returns:
        The file, and how far its outputs are from PyTorch's.

    Raises:
        StateError: There is no such point or network, or the run is not finished.
        TargetError: The target cannot run the network, or runs it with other results.
    """
    result = read_result(folder)
    if not 0 <= point < len(result.points):
        raise StateError(f"{folder} has {len(result.points)} networks, counted from 0; there is no {point}")
    parts = assemble(read_config(folder / "config.toml"))
    entry = result.reference if network == "reference" else getattr(result.points[point], network)
    if entry is None:
        raise StateError(f"{folder} has no {network} network at point {point}: none met the budget")
    module = parts.build(entry.arch, "train")
    copies.load(module, load_file(folder / entry.weights))
    module.eval()
    out.mkdir(parents=True, exist_ok=True)
    session = config.build("targets", {"name": target}).prepare(module, parts.task.example, out)
    error = exporting.parity(session, module, parts.task.example, tolerance=parts.verification.tolerance)
    return Exported(target, str(session.artifact) if session.artifact else None, error)

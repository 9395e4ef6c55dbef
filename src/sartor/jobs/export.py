"""Export a trained network of a finished run for another target, checked against PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from sartor import exporting
from sartor.core import files
from sartor.core.errors import StateError
from sartor.exporting.weights_file import load_own
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
        sha256: Of the file; None if there is none.
        note: In what the file takes less than it might, and why; "" if in nothing.
    """

    target: str
    file: str | None
    relative_error: float
    sha256: str | None = None
    note: str = ""


def export(
    folder: Path,
    target: str,
    out: Path,
    *,
    point: int = 0,
    network: Role = "winner",
    wishes: Mapping[str, Any] | None = None,
) -> Exported:
    """Prepare a trained network on `target`.

    Args:
        folder: A finished run folder.
        target: Name of a target.
        out: Folder for its files.
        point: Which point of the budget, counted from 0.
        network: The winner, the uniformly scaled network, the search's own, or the reference.
        wishes: Settings over those of the run's `[export]` table.

    Returns:
        The file, and how far its outputs are from PyTorch's.

    Raises:
        StateError: There is no such point or network, its weights are not those of the run, or it is not finished.
        NarrowError: The network cannot take the sizes asked for.
        TargetError: The target cannot run the network, or runs it with other results.
    """
    result = read_result(folder)
    if not 0 <= point < len(result.points):
        raise StateError(f"{folder} has {len(result.points)} networks, counted from 0; there is no {point}")
    settings = read_config(folder / "config.toml")
    settings["export"] = {**settings.get("export", {}), **(wishes or {})}
    settings["target"] = {"name": target}
    parts = assemble(settings)
    entry = result.reference if network == "reference" else getattr(result.points[point], network)
    if entry is None:
        raise StateError(f"{folder} has no {network} network at point {point}, as none met the budget; take winner")
    result.check(folder, [entry.weights])
    module = parts.build(entry.arch, "train")
    load_own(module, folder / entry.weights)
    out.mkdir(parents=True, exist_ok=True)
    tolerance = parts.verification.tolerance
    found = exporting.prepare(parts.target, module.eval(), parts.task.example, out, parts.export, tolerance=tolerance)
    file = found.session.artifact
    digest = None if file is None else files.sha256(file)
    return Exported(target, None if file is None else str(file), found.relative_error, digest, found.note)

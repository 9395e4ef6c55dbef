"""Export a trained network of a finished run for another target, checked against PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeAlias

from safetensors.torch import load_file

from sartor import config, exporting
from sartor.core.errors import StateError
from sartor.jobs.fit.assemble import assemble
from sartor.run.folder import read_config, read_json

Role: TypeAlias = Literal["winner", "uniform", "searched", "reference"]


def export(folder: Path, target: str, out: Path, *, point: int = 0, network: Role = "winner") -> dict[str, Any]:
    """Prepare a trained network on `target`.

    Args:
        folder: A finished run folder.
        target: Name of a target.
        out: Folder for its files.
        point: Which point of the budget, counted from 0.
        network: The winner, the uniformly scaled network, the search's own where the uniformly scaled one has won, or
            the reference.

    Returns:
        `file`, and `relative_error` of its outputs against PyTorch's.

    Raises:
        StateError: There is no such point or network, or the run is not finished.
        TargetError: The target cannot run the network, or runs it with other results.
    """
    result = read_json(folder / "result.json")
    if not 0 <= point < len(result["curve"]):
        raise StateError(f"{folder} has {len(result['curve'])} networks, counted from 0; there is no {point}")
    parts = assemble(read_config(folder / "config.toml"))
    entry = result["reference"] if network == "reference" else result["curve"][point].get(network)
    if entry is None and network == "searched":
        raise StateError(f"at point {point} of {folder} the winner is the search's own network; take winner instead")
    if entry is None:
        raise StateError(f"{folder} has no {network} network at point {point}: none met the budget")
    module = parts.build(tuple(entry["arch"]), "train")
    module.load_state_dict(load_file(folder / entry["weights"]))
    module.eval()
    out.mkdir(parents=True, exist_ok=True)
    session = config.build("targets", {"name": target}).prepare(module, parts.task.example, out)
    error = exporting.parity(session, module, parts.task.example, tolerance=parts.verification.tolerance)
    return {"file": str(session.artifact) if session.artifact else None, "relative_error": error, "target": target}

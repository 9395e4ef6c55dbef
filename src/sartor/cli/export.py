"""Export the winner of a finished run for a target, checked against PyTorch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def run(
    folder: Annotated[Path, typer.Argument(help="A finished run folder.")],
    target: Annotated[str, typer.Option(help="`sartor list targets` names them.")] = "onnxruntime",
    out: Annotated[Path | None, typer.Option(help="Where to [default: FOLDER/export_TARGET].")] = None,
    point: Annotated[int, typer.Option(help="Which of several budgets, counted from 0.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print file and error as JSON.")] = False,
) -> int:
    """Export the trained winner for a target and check its outputs against PyTorch's."""
    from sartor.jobs.export import export  # noqa: PLC0415 - torch is slow to import: not for --help

    place = out or folder / f"export_{target}"
    found = export(folder, target, place, point=point)
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        sys.stdout.write(f"{found['file'] or 'nothing to write: this target runs the module itself'}\n")
        sys.stdout.write(f"largest relative error against PyTorch: {found['relative_error']:.1e}\n")
    return 0

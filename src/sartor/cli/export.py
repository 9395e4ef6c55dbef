"""Export the winner of a finished run for a target, checked against PyTorch; or its search for Optuna's dashboard."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer


def run(
    folder: Annotated[Path, typer.Argument(help="A finished run folder; with --to optuna also an unfinished one.")],
    target: Annotated[str, typer.Option(help="`sartor list targets` names them.")] = "onnxruntime",
    to: Annotated[
        Literal["target", "optuna"], typer.Option(help="The winner for a target, or all trials as an Optuna study.")
    ] = "target",
    out: Annotated[
        Path | None, typer.Option(help="Where to [default: FOLDER/export_TARGET, or the file FOLDER/optuna.db].")
    ] = None,
    network: Annotated[
        Literal["winner", "uniform", "searched", "reference"],
        typer.Option(help="Which network; `searched` is the search's own where uniform scaling's has won."),
    ] = "winner",
    point: Annotated[int, typer.Option(help="Which of several budgets, counted from 0.")] = 0,
    opset: Annotated[
        int | None, typer.Option(help="Of an ONNX file; 0 is the exporter's own [default: the run's export.opset].")
    ] = None,
    dynamic: Annotated[
        list[str] | None,
        typer.Option(
            help="A size to leave open beside the batch: height, width, length, or ids.1 of the input ids. Repeatable "
            "[default: the run's export.dynamic]."
        ),
    ] = None,
    otherwise: Annotated[
        Literal["refuse", "fixed"] | None,
        typer.Option(
            help="If the network cannot take other sizes: refuse, or write a file of the example's "
            "[default: the run's export.otherwise]."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print file and error as JSON.")] = False,
) -> int:
    """Export a trained network for a target and check its outputs against PyTorch's."""
    if to == "optuna":
        return _studies(folder, out or folder / "optuna.db", as_json)
    from sartor.jobs.export import export  # noqa: PLC0415 - torch is slow to import: not for --help

    place = out or folder / (f"export_{target}" if network == "winner" else f"export_{target}_{network}")
    names = [name.strip() for text in dynamic or () for name in text.split(",")]
    wished = {"opset": opset, "dynamic": names or None, "otherwise": otherwise}
    wishes = {name: value for name, value in wished.items() if value is not None}
    found = export(folder, target, place, point=point, network=network, wishes=wishes)
    if as_json:
        sys.stdout.write(json.dumps(asdict(found)) + "\n")
    else:
        sys.stdout.write(f"{found.file or 'nothing to write: this target runs the module itself'}\n")
        sys.stdout.write(f"largest relative error against PyTorch: {found.relative_error:.1e}\n")
        if found.sha256 is not None:
            sys.stdout.write(f"SHA-256: {found.sha256}\n")
        if found.note:
            sys.stdout.write(f"{found.note}\n")
    return 0


def _studies(folder: Path, out: Path, as_json: bool) -> int:
    from sartor.jobs.optuna_study import export_studies  # noqa: PLC0415 - torch is slow to import: not for --help

    found = export_studies(folder, out)
    if as_json:
        sys.stdout.write(json.dumps(asdict(found)) + "\n")
        return 0
    for study in found.studies:
        sys.stdout.write(f"study {study.name}: {study.trials} trials, {study.failed} of them failed\n")
    sys.stdout.write(f"{found.file} is written; to look at it: {found.open}\n")
    return 0

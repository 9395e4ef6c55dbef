"""Strategies side by side on a table of published results: which search finds what, after how many evaluations."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer


def run(
    space: Annotated[str, typer.Argument(help="A space whose networks the table lists: digits_widths, nats_size.")],
    table: Annotated[
        str,
        typer.Option(help="CSV file (also .gz), or the folder of NATS-Bench [default: the table that ships, if any]."),
    ] = "",
    strategies: Annotated[str, typer.Option(help="Names with commas between them.")] = (
        "random_search,regularized_evolution,layernas"
    ),
    budget: Annotated[
        list[str] | None, typer.Option(help="METRIC=BOUND, as in macs=140e6 or latency_ms=0.02. Repeatable.")
    ] = None,
    evaluations: Annotated[int, typer.Option(help="Trials per run.")] = 200,
    runs: Annotated[int, typer.Option(help="Runs of each strategy.")] = 100,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    signal: Annotated[str, typer.Option(help="The column that searches see [default: the one reported].")] = "",
    noise: Annotated[float, typer.Option(help="Standard deviation of noise on the signal, in points.")] = 0.0,
    dataset: Annotated[str, typer.Option(help="Which one, if the table has several.")] = "",
    objective: Annotated[
        str | None, typer.Option(help="accuracy, or compression: C (2 - C) A / A_teacher, in per cent.")
    ] = None,
    space_: Annotated[list[str] | None, typer.Option("--space", help="A setting of the space: classes=100.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting: regularized_evolution.sample=5.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for bench.html, bench.png, bench.json, curves*.csv.")] = Path(
        "runs/bench"
    ),
    workers: Annotated[int, typer.Option(help="Processes; results do not depend on it [default: all cores].")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print bench.json.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> int:
    """Compare search strategies with equal evaluations, many runs each, on results that are looked up."""
    # torch is slow to import: not for --help
    from sartor import config  # noqa: PLC0415
    from sartor.jobs.bench import Bench, bench  # noqa: PLC0415
    from sartor.report.bench import overview, sentences, write  # noqa: PLC0415
    from sartor.run.progress import console, display  # noqa: PLC0415
    from sartor.timing.machine import usable_cores  # noqa: PLC0415

    names = [name.strip() for name in strategies.split(",") if name.strip()]
    settings = config.merge({name: {} for name in names}, config.assigned({}, set_ or []))
    bounds = config.assigned({}, config.shortcuts(budget=budget or [])).get("budget", {})
    place = {"name": space, **config.assigned({}, space_ or [])}
    task = Bench(place, table, settings, bounds, evaluations, runs, seed, signal, noise, dataset)
    task = task if objective is None else replace(task, objective=objective)
    screen = display(quiet=quiet)
    try:
        found = bench(task, workers=workers or usable_cores(), show=lambda done, total: screen.bar(done, total, "runs"))
    finally:
        screen.close()
    curves, timed = found.pop("curves"), found.pop("timed")
    write(found, curves, out, timed)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return 0
    console().print(overview(found))
    for sentence in sentences(found):
        sys.stdout.write(f"{sentence}\n")
    sys.stdout.write(f"{out / 'bench.html'} shows the curves; bench.png, bench.json and curves.csv are beside it\n")
    return 0

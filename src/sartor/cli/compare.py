"""Strategies side by side on one real problem, with equal allowances and seeds; or finished runs of one problem."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from sartor.cli import TRUST_HELP


def run(
    what: Annotated[
        list[str],
        typer.Argument(help="A recipe; or folders of finished runs.", metavar="RECIPE|FOLDERS", show_default=False),
    ],
    strategies: Annotated[str, typer.Option(help="Names with commas between them; baselines are added.")] = "",
    trials: Annotated[float | None, typer.Option(help="Trials that every search may make.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training data of every search.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Processor seconds of every search.")] = None,
    seeds: Annotated[int, typer.Option(help="The recipe's seed and those that follow.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder of it all; the same command again goes on.")] = Path("runs/compare"),
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting: training.epochs=5, layernas.buckets=50.")
    ] = None,
    trust_code: Annotated[bool, typer.Option("--trust-code", help=TRUST_HELP)] = False,
    point: Annotated[int, typer.Option(help="Of runs with several budgets: which, counted from 0.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print compare.json.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> int:
    """Compare searches: equal budgets, several seeds, answers trained in full and tested.

    With a recipe (as `sartor fit` takes it), every strategy searches with the same trials, epochs or seconds; random
    search, uniform scaling and a greedy search are always among them. With folders of finished `sartor fit` runs, or
    of a comparison, of one problem: the same page, nothing is run.
    """
    # torch is slow to import: not for --help
    from sartor import recipes  # noqa: PLC0415
    from sartor.jobs.compare.folders import gather  # noqa: PLC0415
    from sartor.jobs.compare.run import compare_recipe  # noqa: PLC0415
    from sartor.report.compare import notes, overview, sentences, write  # noqa: PLC0415
    from sartor.run.ledger import process_age  # noqa: PLC0415
    from sartor.run.progress import console, display  # noqa: PLC0415
    from sartor.run.schema import encode  # noqa: PLC0415

    if all(Path(w).is_dir() and w not in recipes.names() for w in what):
        found = gather([Path(w) for w in what], out, point=point)
    else:
        found = compare_recipe(
            what,
            out,
            strategies=strategies,
            given={"trials": trials, "epochs": epochs, "seconds": seconds},
            seeds=seeds,
            assignments=set_ or [],
            trust_code=trust_code,
            display=display(quiet=quiet),
            age=process_age(),
            command=" ".join(["sartor", *sys.argv[1:]]),
        )
    write(found, out)
    if as_json:
        sys.stdout.write(json.dumps(encode(found), indent=1) + "\n")
        return 0
    console().print(overview(found))
    for sentence in [*sentences(found), *notes(found)]:
        sys.stdout.write(f"{sentence}\n")
    sys.stdout.write(f"{out / 'compare.html'} shows it all; compare.json and compare.png are beside it\n")
    return 0

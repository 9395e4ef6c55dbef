"""The search alone: which architectures it names, with modelled costs, without training them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from sartor.cli import TRUST_HELP

MANY = 30
"""Choices beyond which only those that differ from the reference's are printed."""


def run(
    recipe: Annotated[str, typer.Argument(help="A TOML file, or a packaged recipe.")] = "digits",
    folder: Annotated[Path | None, typer.Argument(help="The run folder [default: runs/NAME].")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a setting: strategy.epochs=20.")] = None,
    trust_code: Annotated[bool, typer.Option("--trust-code", help=TRUST_HELP)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print search.json.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> int:
    """Run the search alone. `sartor fit` in the same folder goes on from there.

    The costs are modelled, the networks untrained: only `sartor fit` measures and verifies.
    """
    # torch is slow to import: not for --help
    from sartor import config  # noqa: PLC0415
    from sartor.jobs.fit.budget import human, words  # noqa: PLC0415
    from sartor.jobs.search import search  # noqa: PLC0415
    from sartor.run.ledger import process_age  # noqa: PLC0415
    from sartor.run.progress import display  # noqa: PLC0415
    from sartor.run.schema import encode  # noqa: PLC0415

    settings = config.asked(recipe, set_ or [], trust_code=trust_code)
    place = folder or Path("runs") / Path(recipe).stem
    command = " ".join(["sartor", *sys.argv[1:]])
    result = search(settings, place, command=command, display=display(quiet=quiet), age=process_age())
    if as_json:
        sys.stdout.write(json.dumps(encode(result), indent=1) + "\n")
        return 0
    for found in result.found:
        sys.stdout.write(f"{words(found.budget)}\n")
        if found.arch is None:
            sys.stdout.write(f"  {found.reason}\n")
            continue
        modelled = ", ".join(f"{m} {human(m, v)}" for m, v in found.modelled.items())
        sys.stdout.write(f"  modelled: {modelled}\n")
        chosen = found.options
        if len(chosen) > MANY:
            sys.stdout.write(f"  {len(found.changed)} of {len(chosen)} choices are not the reference's:\n")
            chosen = {name: chosen[name] for name in found.changed}
        sys.stdout.write("  " + ", ".join(f"{n} {w}" for n, w in chosen.items()) + "\n")
    sys.stdout.write(f"sartor fit {recipe} {place} trains and verifies\n")
    return 0

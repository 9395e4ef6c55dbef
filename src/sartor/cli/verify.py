"""Measure everything in a finished run again and say whether it still holds."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def run(
    folder: Annotated[Path, typer.Argument(help="A finished run folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> int:
    """Measure everything in a finished run again: latency, accuracy of the exported file, MACs, parameters.

    Exit status 0: everything holds and the budget is met; 1: something does not; 2: a mistake.
    """
    # torch is slow to import: not for --help
    from rich.table import Table  # noqa: PLC0415

    from sartor.jobs.verify import verify  # noqa: PLC0415
    from sartor.run.progress import console, display  # noqa: PLC0415

    found = verify(folder, display=display(quiet=quiet))
    if as_json:
        sys.stdout.write(json.dumps({**asdict(found), "holds": found.holds}, indent=1) + "\n")
    else:
        table = Table("network", "what", "then", "now", "")
        for check in found.checks:
            mark = "[green]holds[/green]" if check.holds else "[red]does not hold[/red]"
            table.add_row(check.network, check.what, check.then, check.now, mark)
        console().print(table)
        sys.stdout.write("\n".join(found.sentences) + "\n")
    return 0 if found.holds else 1

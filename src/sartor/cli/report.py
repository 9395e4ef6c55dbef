"""Write the report page of a finished run again, and show its table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def run(
    folder: Annotated[Path, typer.Argument(help="A finished run folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print result.json instead of the table.")] = False,
) -> int:
    """Write `report.html` from `result.json`, and show the table."""
    from sartor.report.page import write_page  # noqa: PLC0415
    from sartor.report.table import summary  # noqa: PLC0415
    from sartor.run.progress import console  # noqa: PLC0415 - slow to import: not for --help
    from sartor.run.result import read_result  # noqa: PLC0415

    page, result = write_page(folder), read_result(folder)
    if as_json:
        sys.stdout.write((folder / "result.json").read_text(encoding="utf-8"))
    else:
        console().print(summary(result))
        sys.stdout.write(f"{page}\n")
    for name, how in result.changed(folder).items():
        sys.stderr.write(f"not as delivered: {folder / name} {how}\n")
    return 0

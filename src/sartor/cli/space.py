"""What of a network can be cut: groups of channels, what is fixed and why, and the smallest network there is."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from sartor.cli import INPUT_HELP


def run(
    network: Annotated[str, typer.Argument(help="torchvision:NAME, timm:NAME or package.module:callable.")],
    inputs: Annotated[list[str] | None, typer.Option("--input", help=INPUT_HELP)] = None,
    target: Annotated[str | None, typer.Option(help="Time the smallest and the full network there.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="A module to leave as it is. Repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> int:
    """Say what of a network can be cut, before anything is trained.

    The floor is the smallest network that sartor can make of it: no budget below it can be met.
    """
    # torch is slow to import: not for --help
    from sartor import config  # noqa: PLC0415
    from sartor.jobs.space import describe_space  # noqa: PLC0415
    from sartor.networks import inputs_of  # noqa: PLC0415
    from sartor.run.progress import console, display  # noqa: PLC0415
    from sartor.spaces.widths import Widths  # noqa: PLC0415

    screen = display(quiet=quiet)
    try:
        space = Widths(network=network, example=inputs_of(inputs or ["1,3,224,224"]), ignore=ignore or ())
        where = None if target is None else config.build("targets", {"name": target})
        found = describe_space(space, where, show=lambda done, total: screen.bar(done, total, "interleaved rounds"))
    finally:
        screen.close()
    if as_json:
        sys.stdout.write(json.dumps({"network": network, **found}, indent=1) + "\n")
    else:
        from sartor.report.space import searchability  # noqa: PLC0415

        console().print(searchability(network, found))
        sys.stdout.write(_next(network, found))
    return 0


def _next(network: str, found: dict[str, Any]) -> str:
    kind = "its own class" if found["keeps_class"] else "its own class where its code allows, else graphs of its layers"
    return f"\nResults are networks of {kind}. Fit it to a budget: sartor fit --network {network} --budget macs=50%\n"

"""Find, train, verify and export the best network inside a budget."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sartor.cli import TRUST_HELP

Config = Annotated[
    str, typer.Argument(help="A TOML file, or a packaged recipe; `sartor list recipes` names them.", show_default=False)
]
Folder = Annotated[Path | None, typer.Argument(help="The run folder [default: runs/NAME]. The same again goes on.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a setting: strategy.epochs=20. Repeatable.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print result.json instead of the table.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


Network = Annotated[
    str | None, typer.Option(help="Fit this network: torchvision:NAME, timm:NAME or package.module:callable.")
]
Weights = Annotated[str | None, typer.Option(help="Its trained weights: a safetensors file, or a state dict.")]
Data = Annotated[str | None, typer.Option(help="TASK:PLACE, as in image_folder:photos; or a task alone.")]
Budget = Annotated[
    list[str] | None, typer.Option(help="METRIC=BOUND: latency_ms=5, macs=50%, latency_ms=5,8. Repeatable.")
]
Target = Annotated[str | None, typer.Option(help="Where it will run; `sartor list targets` names them.")]
Strategy = Annotated[str | None, typer.Option(help="How to search; `sartor list strategies` names them.")]


def run(
    recipe: Config = "",
    folder: Folder = None,
    network: Network = None,
    weights: Weights = None,
    data: Data = None,
    budget: Budget = None,
    target: Target = None,
    strategy: Strategy = None,
    set_: Set = None,
    trust_code: Annotated[bool, typer.Option("--trust-code", help=TRUST_HELP)] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Find, train, verify and export the best network inside a budget.

    Without arguments: the packaged recipe `digits`, offline, on real data. With --network, the widths of your network:
    sartor fit --network torchvision:resnet18 --data image_folder:photos --budget latency_ms=5. Killed or stopped, the
    same command goes on; on a finished folder it shows the result. Exit status 0: the budget is met as measured; 1: it
    is not; 2: a mistake.
    """
    # torch is slow to import: not for --help
    from sartor import config, recipes  # noqa: PLC0415
    from sartor.jobs.fit.api import fit_config  # noqa: PLC0415
    from sartor.report.table import summary  # noqa: PLC0415
    from sartor.run.ledger import process_age  # noqa: PLC0415
    from sartor.run.progress import display  # noqa: PLC0415

    if network is not None and folder is None and recipe and recipe not in recipes.names():
        recipe, folder = "", Path(recipe)  # with a network, what follows is the folder
    named = config.shortcuts(
        network=network, weights=weights, data=data, budget=budget or (), target=target, strategy=strategy
    )
    settings = config.asked(
        recipe or ("digits" if network is None else "network"), [*named, *(set_ or [])], trust_code=trust_code
    )
    place = folder or Path("runs") / (Path(recipe or "digits").stem if network is None else network.rpartition(":")[2])
    if (place / "result.json").exists() and not quiet:
        sys.stderr.write(f"finished: {place} holds the result of this run\n")
    fit = fit_config(settings, place, display=display(quiet=quiet), age=process_age())
    if as_json:
        sys.stdout.write((place / "result.json").read_text(encoding="utf-8"))
    else:
        from sartor.run.progress import console  # noqa: PLC0415

        console().print(summary(fit.result))
        sys.stdout.write(f"\n{place}/report.html shows it all; {place}/model.* is the network. ")
        sys.stdout.write(f"Measure it again: sartor verify {place}\n")
    return 0 if fit.verdict == "PASS" else 1

"""Measure a network on a target: latency with interval, MACs, parameters, peak memory; or plan it for a device."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sartor.core.errors import ConfigError


def run(
    network: Annotated[
        str | None, typer.Argument(help="torchvision:NAME, timm:NAME, package.module:callable, or a .onnx file.")
    ] = None,
    target: Annotated[str, typer.Option(help="`sartor list targets` names them.")] = "onnxruntime",
    shape: Annotated[str, typer.Option("--input", help="Shape of the input, batch first.")] = "1,3,224,224",
    threads: Annotated[int | None, typer.Option(help="Threads, for targets that have them.")] = None,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.")] = 40,
    plan: Annotated[int, typer.Option(help="Write this many networks of a space, to be timed elsewhere.")] = 0,
    recipe: Annotated[str, typer.Option(help="With --plan: the config that names the space.")] = "digits",
    out: Annotated[Path | None, typer.Option(help="With --plan: the folder for ONNX files and manifest.csv.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="With --plan: override a setting.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> int:
    """Measure a network on a target, interleaved with a yardstick network.

    With --plan N --out DIR: write N networks of a space as ONNX files with a manifest. Time them on your device, fill
    in the column latency_ms, and fit with --set latency_model.samples=DIR/manifest.csv.
    """
    from sartor.run.progress import display  # noqa: PLC0415 - not for --help

    screen = display(quiet=quiet)
    try:
        if plan:
            return _plan(plan, recipe, out, set_ or [], screen)
        if network is None:
            raise ConfigError("name a network, as in: sartor measure torchvision:resnet18; or give --plan N --out DIR")
        found = _measure(network, target, shape, threads, rounds, screen)
    finally:
        screen.close()
    sys.stdout.write(json.dumps(found, indent=1) + "\n" if as_json else _text(found))
    return 0


def _measure(network: str, target: str, shape: str, threads: int | None, rounds: int, screen: Any) -> dict[str, Any]:
    # torch is slow to import: not for --help
    from sartor import config  # noqa: PLC0415
    from sartor.jobs.measuring import measure_network  # noqa: PLC0415
    from sartor.networks import input_shape  # noqa: PLC0415

    table = {"name": target} if threads is None else {"name": target, "threads": threads}
    return measure_network(
        network,
        config.build("targets", table),
        input_shape(shape),
        rounds=rounds,
        show=lambda done, total: screen.bar(done, total, "interleaved rounds"),
    )


def _plan(count: int, recipe: str, out: Path | None, assignments: list[str], screen: Any) -> int:
    from sartor import config, recipes  # noqa: PLC0415 - torch is slow to import: not for --help
    from sartor.jobs.measuring import write_plan  # noqa: PLC0415

    if out is None:
        raise ConfigError("--plan needs --out DIR, the folder for the networks")
    path = recipes.find(recipe)
    settings = config.override(config.read(path), assignments)
    manifest, number = write_plan(
        settings, count, out, show=lambda done, total: screen.bar(done, total, "exporting networks")
    )
    sys.stdout.write(
        f"{number} networks and {manifest}: time each on your device, fill in the column latency_ms, then\n"
        f"sartor fit {recipe} --set latency_model.samples={manifest}\n"
    )
    return 0


def _text(found: dict[str, Any]) -> str:
    times, ratio = found["latency_ms"], found["relative"]
    rows = [
        ("latency", f"{times['value']:.3f} ms ({times['low']:.3f}-{times['high']:.3f}) per batch of {found['input']}"),
        ("relative", f"{ratio['value']:.3f} ({ratio['low']:.3f}-{ratio['high']:.3f}) x the yardstick network"),
        ("MACs", _count(found["macs"])),
        ("parameters", _count(found["params"])),
        ("peak memory", _count(found["memory_bytes"]) + "B"),
        ("target", ", ".join(f"{k} {v}" for k, v in found["target"].items())),
        ("processor", f"{found['machine']['processor']}, load {found['machine']['load_average']}"),
    ]
    return "".join(f"{name:12s}{value}\n" for name, value in rows)


def _count(value: float | None) -> str:
    from sartor.jobs.budget import human  # noqa: PLC0415 - not for --help

    return "unknown " if value is None else human("count", value)

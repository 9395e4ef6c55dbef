"""Measure a network on a target: latency with interval, MACs, parameters, peak memory; or plan it for a device."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sartor.cli import INPUT_HELP, TRUST_HELP
from sartor.core.errors import ConfigError


def run(
    network: Annotated[
        str | None,
        typer.Argument(help="torchvision:NAME, timm:NAME, package.module:callable, or a .onnx or .pt2 file."),
    ] = None,
    target: Annotated[str | None, typer.Option(help="`sartor list targets` names them; default onnxruntime.")] = None,
    inputs: Annotated[list[str] | None, typer.Option("--input", help=INPUT_HELP)] = None,
    threads: Annotated[int | None, typer.Option(help="Threads, for targets that have them.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Interleaved rounds: 40; for operators 8 per session.")] = None,
    processes: Annotated[
        int, typer.Option(help="Fresh processes that share the rounds of a network; 1 times in this one.")
    ] = 3,
    plan: Annotated[int, typer.Option(help="Write this many networks of a space, to be timed elsewhere.")] = 0,
    operators: Annotated[
        bool, typer.Option("--operators", help="Time every operator of a space, into a table.")
    ] = False,
    sessions: Annotated[int, typer.Option(help="With --operators: fresh sessions of each.")] = 5,
    check: Annotated[int, typer.Option(help="With --operators: random whole networks to compare the sums with.")] = 0,
    recipe: Annotated[str, typer.Option(help="With --plan, --operators: the config that names the space.")] = "digits",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for --plan (ONNX files, manifest.csv); file for --operators (.json, .yaml)."),
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="With --recipe: override a setting.")] = None,
    trust_code: Annotated[bool, typer.Option("--trust-code", help=TRUST_HELP)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> int:
    """Measure a network on a target, interleaved with a yardstick network.

    With --plan N --out DIR: write N networks of a space as ONNX files with a manifest. Time them on your device, fill
    in the column latency_ms, and fit with --set latency_model.samples=DIR/manifest.csv.

    With --operators --recipe CONFIG --out FILE: time every operator of a space alone, for the cost `lookup` or --set
    latency_model.table=FILE. With --check N as well: how wrong its sums are for N whole networks. Killed, it goes on.
    """
    from sartor.run.progress import display  # noqa: PLC0415 - not for --help

    screen = display(quiet=quiet)
    _check(network, plan, operators, check)
    try:
        if plan:
            return _plan(plan, recipe, out, _asked(recipe, set_, trust_code), screen)
        if operators:
            wish = {"sessions": sessions, "check": check, **({} if rounds is None else {"rounds": rounds})}
            found = _operators(_asked(recipe, set_, trust_code), _target(target, threads), out, wish, screen)
        else:
            assert network is not None
            where = _target(target, threads) or {"name": "onnxruntime"}
            found = _measure(
                network, where, inputs or ["1,3,224,224"], (40 if rounds is None else rounds, processes), screen
            )
    finally:
        screen.close()
    text = _table_text if operators else _text
    sys.stdout.write(json.dumps(found, indent=1) + "\n" if as_json else text(found))
    return 0


def _check(network: str | None, plan: int, operators: bool, check: int) -> None:
    """One thing at a time."""
    if plan and operators:
        raise ConfigError("--plan writes networks for another device, --operators measures here; give one of them")
    if operators and network is not None:
        raise ConfigError(f"--operators measures the space of a config, not {network}; name it with --recipe")
    if check and not operators:
        raise ConfigError(
            "--check belongs to --operators, as in: sartor measure --operators --recipe CONFIG --check 20"
        )
    if network is None and not plan and not operators:
        raise ConfigError(
            "name a network, as in: sartor measure torchvision:resnet18; or give --plan N --out DIR, or --operators"
        )


def _target(name: str | None, threads: int | None) -> dict[str, Any]:
    """The table of the target that was asked for; empty if none was."""
    if name is None and threads is None:
        return {}
    return {"name": name or "onnxruntime", **({} if threads is None else {"threads": threads})}


def _measure(
    network: str, target: dict[str, Any], inputs: list[str], effort: tuple[int, int], screen: Any
) -> dict[str, Any]:
    # torch is slow to import: not for --help
    from sartor import config  # noqa: PLC0415
    from sartor.jobs.measure.network import measure_network  # noqa: PLC0415
    from sartor.networks import inputs_of  # noqa: PLC0415

    return measure_network(
        network,
        config.build("targets", target),
        inputs_of(inputs),
        rounds=effort[0],
        processes=effort[1],
        show=lambda done, total: screen.bar(done, total, "interleaved rounds"),
    )


def _asked(recipe: str, assignments: list[str] | None, trust_code: bool) -> dict[str, Any]:
    from sartor import config  # noqa: PLC0415 - not for --help

    return config.asked(recipe, assignments or [], trust_code=trust_code)


def _plan(count: int, recipe: str, out: Path | None, settings: dict[str, Any], screen: Any) -> int:
    # torch is slow to import: not for --help
    from sartor.jobs.measure.network import write_plan  # noqa: PLC0415

    if out is None:
        raise ConfigError("--plan needs --out DIR, the folder for the networks")
    manifest, number = write_plan(
        settings, count, out, show=lambda done, total: screen.bar(done, total, "exporting networks")
    )
    sys.stdout.write(
        f"{number} networks and {manifest}: time each on your device, fill in the column latency_ms, then\n"
        f"sartor fit {recipe} --set latency_model.samples={manifest}\n"
    )
    return 0


def _operators(
    settings: dict[str, Any], target: dict[str, Any], out: Path | None, wish: dict[str, int], screen: Any
) -> dict[str, Any]:
    # torch is slow to import: not for --help
    from sartor import config  # noqa: PLC0415
    from sartor.jobs.measure.operators import Wish, measure_operators, space_of  # noqa: PLC0415

    if out is None:
        raise ConfigError("--operators needs --out FILE, the table, as in --out operators.json")
    asked = Wish(**wish, seed=int(settings.get("seed", 0)))
    where = config.build("targets", target or settings.get("target") or {"name": "onnxruntime"})
    return measure_operators(space_of(settings), where, out, asked, show=screen.bar)


def _table_text(found: dict[str, Any]) -> str:
    check = found["check"]
    rows = [
        ("operators", f"{found['operators']}, in {found['table']}"),
        ("anchor", f"{found['anchor']}: {found['anchor_ms']:.3f} ms"),
        ("target", ", ".join(f"{k} {v}" for k, v in found["target"].items())),
        ("processor", found["machine"]),
    ]
    if check is None:
        rows.append(("check", "none: --check 20 tells the error for 20 random whole networks"))
    else:
        rows.append(("error", f"NRMSE {check['nrmse']:.1%} on {check['networks']} whole networks"))
        rows.append(("bias", f"{check['bias']:+.1%} of the mean network"))
        rows.append(("scale", f"times {check['scale']:.3f} the sums have NRMSE {check['scaled_nrmse']:.1%}"))
    return "".join(f"{name:12s}{value}\n" for name, value in rows)


def _text(found: dict[str, Any]) -> str:
    from sartor.report import uncounted  # noqa: PLC0415 - not for --help

    times, ratio = found["latency_ms"], found["relative"]
    rows = [
        (
            "latency",
            f"{times['value']:.3f} ms ({times['low']:.3f}-{times['high']:.3f}) per batch of {_shapes(found['input'])}",
        ),
        ("relative", f"{ratio['value']:.3f} ({ratio['low']:.3f}-{ratio['high']:.3f}) x the yardstick network"),
        ("MACs", _count(found["macs"])),
        *(("not counted", line) for line in uncounted.lines(found["uncounted"])),
        ("parameters", _count(found["params"])),
        ("peak memory", _count(found["memory_bytes"]) + "B"),
        ("target", ", ".join(f"{k} {v}" for k, v in found["target"].items())),
        ("processor", f"{found['machine']['processor']}, load {found['machine']['load_average']}"),
        ("processes", f"{found['processes']}" + (f" ({found['note']})" if found["note"] else "")),
    ]
    return "".join(f"{name:12s}{value}\n" for name, value in rows)


def _shapes(found: Any) -> str:
    """Shapes of the inputs."""
    if isinstance(found, dict):
        return ", ".join(f"{name} {shape}" for name, shape in found.items())
    return str(found) if all(isinstance(n, int) for n in found) else " and ".join(map(str, found))


def _count(value: float | None) -> str:
    from sartor.jobs.fit.budget import human  # noqa: PLC0415 - not for --help

    return "unknown " if value is None else human("count", value)

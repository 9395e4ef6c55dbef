"""`sartor fit` on real data of every kind of task: what comes out, with its unit, direction and interval.

    python benchmarks/tasks_fit.py TASK --data D --weights W --work F --out benchmarks/results/tasks_fit.json

The networks are those of `examples/networks*.py`; `W/TASK.safetensors` holds their weights, which `tasks_real.py` and
`tasks_real_other.py` train. `D` holds the data sets that docs/tasks.md names. A run that was killed goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from sartor import config, recipes
from sartor.core import files
from sartor.jobs.fit.api import Fit, fit_config
from sartor.jobs.fit.assemble import assemble
from sartor.report.table import summary_text
from sartor.run.progress import display
from sartor.run.result import Entry, Result
from sartor.training import score

EXAMPLES = Path(__file__).parent.parent / "examples"
ADAM = {"optimizer": "adamw", "lr": 1e-3, "warmup": 0.5, "distil_weight": 0.5}


@dataclass(frozen=True)
class Case:
    """A network and what it is fitted on; the rest is the packaged recipe `network`."""

    network: str
    task: Callable[[Path], Mapping[str, Any]]
    training: Mapping[str, Any]
    budget: Mapping[str, Any] = field(default_factory=lambda: {"macs": "50%"})
    strategy: Mapping[str, Any] = field(default_factory=dict)
    also: Callable[[Path], Mapping[str, Any]] | None = None
    """Settings of the task with another test split, on which all networks are tested, too."""


CASES = {
    "super_resolution": Case(
        "networks:sr_x2",
        lambda data: {"train": data / "sr/bsds500_train", "test": data / "sr/set5_hr", "scale": 2},
        {**ADAM, "epochs": 4},
        also=lambda data: {"test": data / "sr/set14_hr"},
    ),
    "segmentation": Case(
        "networks:camvid",
        lambda data: {"root": data / "segmentation/camvid", "classes": 11, "ignore": 11},
        {**ADAM, "epochs": 10},
    ),
    "depth": Case(
        "networks:nyu_depth",
        lambda data: {"root": data / "depth/nyu_v2"},
        {**ADAM, "epochs": 8},
    ),
    "audio": Case(
        "networks_other:spoken_digits",
        lambda data: {"data": data / "audio/fsdd.npz"},
        {**ADAM, "epochs": 5},
    ),
    "multisource": Case(
        "networks_other:water",
        lambda data: {
            "data": data / "multisource/water/water64.npz",
            "inputs": ["optical", "dem"],
            "augment": "flips",
            "batch": 16,
        },
        {**ADAM, "epochs": 20},
    ),
    "regression": Case(
        "networks_other:widths_accuracy",
        lambda data: {
            "data": data / "nats_size_cifar10.csv.gz",
            "inputs": ["c1", "c2", "c3", "c4", "c5"],
            "target": "cifar10_test_90",
            "unit": "points",
            "batch": 256,
        },
        {**ADAM, "epochs": 10},
    ),
    "imitate": Case(
        "networks_other:cifar_backbone",
        lambda data: {"data": data / "cifar10/test.parquet", "inputs": "png"},
        {**ADAM, "epochs": 5, "distil_weight": 0.0},
    ),
}


def main() -> None:
    """One case."""
    args = arguments()
    sys.path.insert(0, str(EXAMPLES))
    name, case = args.task, CASES[args.task]
    base = config.read(recipes.find("network"))
    settings = config.merge(
        base,
        {
            "title": f"{name}: {case.network.partition(':')[2]}",
            "seed": args.seed,
            "space": {"network": case.network, "weights": str(args.weights / f"{name}.safetensors")},
            "task": {"name": name, **case.task(args.data)},
            "training": dict(case.training),
            "strategy": dict(case.strategy),
        },
    )
    settings["budget"] = dict(case.budget)
    fit = fit_config(settings, args.work / name, display=display(quiet=False), command="benchmarks/tasks_fit.py")
    print(summary_text(fit.result))
    rows = json.loads(args.out.read_text()) if args.out.exists() else {}
    rows[name] = row(fit.result)
    if case.also is not None:
        changed = {**settings, "task": {**settings["task"], **case.also(args.data)}}
        rows[name]["also"] = {k: str(v) for k, v in case.also(args.data).items()} | elsewhere(fit, changed)
    files.atomically(args.out, lambda part: part.write_text(json.dumps(rows, indent=1) + "\n"))


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=list(CASES))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def elsewhere(fit: Fit, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All networks of a fit on the test split of other settings."""
    parts, found = assemble(settings), {}
    for role, entry in fit.result.networks.items():
        module = parts.build(entry.arch, "train")
        module.load_state_dict(load_file(fit.folder / str(entry.weights)))
        scores = score(module.eval(), parts.task.test(), parts.task)
        found[role] = {name: {"value": s.value, "low": s.low, "high": s.high} for name, s in scores.items()}
    return found


def row(result: Result) -> dict[str, Any]:
    """What the page on tasks says."""
    (point,) = result.points
    return {
        "metric": {"name": result.metric.name, "goal": result.metric.goal, "unit": result.metric.unit},
        "budget": dict(point.budget),
        "verdict": point.sentence,
        "delivered": point.delivered,
        "strategy": result.search.strategy,
        "networks": {role: network(entry, result) for role, entry in result.networks.items()},
        "seconds": round(result.spent.total_seconds),
        "cores": result.environment["usable_cores"],
    }


def network(entry: Entry, result: Result) -> dict[str, Any]:
    """One network's figures."""
    scores = {m.name: entry.scores[m.name] for m in result.metrics}
    return {
        "scores": {name: {"value": s.value, "low": s.low, "high": s.high} for name, s in scores.items()},
        "macs": entry.macs,
        "params": entry.params,
        "latency_ms": entry.latency_ms.as_dict(),
    }


if __name__ == "__main__":
    main()

"""How far measurements can be trusted, and what preparing a network costs; figures for docs/measuring.md.

    OMP_NUM_THREADS=1 python benchmarks/measuring.py

Parts that are already in the results file are kept; `--again` does all of them anew. No data is needed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.models import mobilenet_v2

from sartor import archs
from sartor.core import plugins
from sartor.core.errors import MissingExtraError, TargetError
from sartor.core.rng import global_seed, numpy_rng
from sartor.exporting import export_onnx, parity
from sartor.networks import load_network
from sartor.spaces.mobilenet_v1 import MobilenetV1
from sartor.spaces.resnet_widths import ResnetWidths
from sartor.targets.onnxruntime import OnnxRuntime
from sartor.timing.estimate import _without_drift, absolute, ratio
from sartor.timing.machine import machine
from sartor.timing.meter import Effort, Subject, time_together
from sartor.timing.rounds import Rounds

EXAMPLE = torch.zeros(1, 3, 64, 64)
REFERENCE = "mobilenet_v2"
OTHERS = ("mobilenet_v2 x 0.75", "resnet18", "small")
"""One of the reference's own family, as in a search; one that lives in other caches; one of microseconds."""


def small() -> nn.Module:
    """A network of a few hundred microseconds."""
    widths = (3, 16, 32, 64)
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    with global_seed(0):
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def build(name: str) -> nn.Module:
    """A network of this benchmark."""
    if name == "small":
        return small()
    with global_seed(0):
        return mobilenet_v2(width_mult=0.75) if "x 0.75" in name else load_network(f"torchvision:{name}")


def child(folder: Path, sessions: int, rounds: int, seed: int) -> None:
    """One process: time fresh sessions of all files, print the raw rounds."""
    target = OnnxRuntime()
    subjects = {name: Subject.of_file(target, folder / f"{name}.onnx", EXAMPLE) for name in (REFERENCE, *OTHERS)}
    start = perf_counter()
    (timed,) = time_together(subjects, Effort(rounds, sessions), seed=seed).runs
    print(json.dumps({"rounds": timed.as_dict(), "seconds": perf_counter() - start, "machine": machine()}))


def processes(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Results of several processes, one after another; those of an interrupted run are used again."""
    raw = arguments.output.with_suffix(".raw.jsonl")
    done = [json.loads(line) for line in raw.read_text().splitlines()] if raw.exists() and not arguments.again else []
    with tempfile.TemporaryDirectory() as name:
        for network in (REFERENCE, *OTHERS):
            export_onnx(build(network), EXAMPLE, Path(name) / f"{network}.onnx")
        for seed in range(len(done), arguments.processes):
            options = ["--sessions", arguments.sessions, "--rounds", arguments.rounds, "--seed", seed]
            command = [sys.executable, __file__, "--child", name, *map(str, options)]
            ran = subprocess.run(command, capture_output=True, text=True, check=True)
            done.append(json.loads(ran.stdout.splitlines()[-1]))
            raw.write_text("".join(json.dumps(result) + "\n" for result in done))
            print(f"process {seed + 1} of {arguments.processes} done", flush=True)
    return done


def subset(timed: Rounds, sessions: int, rounds: int) -> Rounds:
    """What fewer sessions and rounds would have given."""
    kept, seen = [], dict[str, int]()
    for j, name in enumerate(timed.columns):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] <= sessions:
            kept.append(j)
    rows = tuple(tuple(row[j] for j in kept) for row in timed.seconds[:rounds])
    return Rounds(tuple(timed.columns[j] for j in kept), rows, tuple(timed.repeats[j] for j in kept))


def spread(values: list[list[float]]) -> dict[str, Any]:
    """Disagreement of all pairs of processes; one list of values per network."""
    pairs = [abs(a / b - 1) for row in values for a, b in combinations(row, 2)]
    return {
        "pairs": len(pairs),
        "median": float(np.median(pairs)),
        "p90": float(np.quantile(pairs, 0.9)),
        "max": float(max(pairs)),
        "within_3_percent": float(np.mean(np.array(pairs) <= 0.03)),
    }


def agreement(runs: list[Rounds]) -> dict[str, Any]:
    """(a) Disagreement of separate processes about the same files."""
    found: dict[str, Any] = {}
    most, long = runs[0].columns.count(REFERENCE), len(runs[0].seconds)
    for sessions, rounds in sorted({(1, 12), (1, long), (2, long), (3, long // 2), (most, long // 2), (most, long)}):
        parts = [subset(run, sessions, rounds) for run in runs]
        ratios = [[ratio(p, name, REFERENCE).value for p in parts] for name in OTHERS]
        widths = [ratio(p, n, REFERENCE) for p in parts for n in OTHERS]
        label = f"ratio, {sessions} sessions, {rounds} rounds"
        found[label] = spread(ratios) | {
            "median_half_width": float(np.median([(e.high - e.low) / 2 / e.value for e in widths]))
        }
    every = (REFERENCE, *OTHERS)
    found["absolute(), all"] = spread([[absolute(run, name).value for run in runs] for name in every])
    first = [subset(run, 1, 30) for run in runs]
    found["median milliseconds of 30 samples of one session"] = spread(
        [[float(np.exp(np.median(run.log(name)))) for run in first] for name in every]
    )
    for name, values in zip(OTHERS, ratios, strict=True):  # of the last, largest setting
        found[f"{label}: {name}"] = spread([values])
        found[f"{label}: {name}"]["estimates"] = [ratio(run, name, REFERENCE).as_dict() for run in runs]
        found[f"milliseconds: {name}"] = spread([[float(np.exp(np.median(run.log(name)))) for run in runs]])
    return found


def same_file(runs: list[Rounds]) -> dict[str, Any]:
    """(b) Two groups of sessions of one file, timed in the same rounds: does the interval contain 1?"""
    found: dict[str, Any] = {}
    for size in (1, 2):
        hits: dict[str, list[bool]] = {}
        widths: list[float] = []
        for run in runs:
            columns = np.array(run.columns)
            for name in dict.fromkeys(run.columns):
                index = list(np.flatnonzero(columns == name))
                for k in range(0, len(index) - 2 * size + 1, 2 * size):
                    labels = columns.astype("U40")
                    labels[index[k : k + size]], labels[index[k + size : k + 2 * size]] = "A", "A again"
                    estimate = ratio(Rounds(tuple(labels), run.seconds, run.repeats), "A", "A again")
                    hits.setdefault(name, []).append(estimate.low <= 1 <= estimate.high)
                    widths.append((estimate.high - estimate.low) / 2)
        flat = [hit for row in hits.values() for hit in row]
        found[f"{size} against {size} sessions"] = {
            "comparisons": len(flat),
            "contains_1": float(np.mean(flat)),
            "median_half_width": float(np.median(widths)),
            "by_network": {name: f"{sum(row)} of {len(row)}" for name, row in hits.items()},
        }
    deviations = {}
    for name in dict.fromkeys(runs[0].columns):
        values = [np.median(_without_drift(run.log(name)), axis=0) for run in runs]
        deviations[name] = float(np.sqrt(np.mean([np.var(v, ddof=1) for v in values])))
    found["standard deviation between sessions of one file"] = deviations
    return found


def timed_call(call: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    start = perf_counter()
    result = call(*arguments)
    return perf_counter() - start, result


def templates(count: int) -> dict[str, Any]:
    """(c) Seconds per network by template and by a fresh export, and whether the two are equally fast."""
    found: dict[str, Any] = {}
    target, rng = OnnxRuntime(), numpy_rng(0, "benchmark", "templates")
    for label, space in {
        "mobilenet_v1": MobilenetV1(),
        "resnet, padding shortcuts": ResnetWidths(shortcut="pad"),
    }.items():
        once, make = timed_call(target.template, space.build(archs.largest(space)), EXAMPLE)
        seconds, fresh, ratios = [], [], []
        for i in range(count):
            arch = space.moves.draw(rng)
            with torch.device("meta"):
                shapes = space.build(arch)
            taken, _ = timed_call(make, shapes)
            seconds.append(taken)
            if i >= count - 2:
                with tempfile.TemporaryDirectory() as folder, global_seed(0):
                    module = space.build(arch)
                    taken, exported = timed_call(target.prepare, module, EXAMPLE, Path(folder))
                    fresh.append(taken)
                    subjects = {
                        "sliced": Subject(partial(make, shapes), EXAMPLE),
                        "exported": Subject.of_file(target, exported.artifact, EXAMPLE),
                    }
                    timed = time_together(subjects, Effort(rounds=40, sessions=3), reference="exported")
                    ratios.append(timed.ratio("sliced").as_dict())
        found[label] = {
            "template_seconds": once,
            "median_seconds_by_template": float(np.median(seconds)),
            "first_seconds": seconds[0],
            "sliced": make.sliced,
            "traced": make.traced,
            "median_seconds_by_export": float(np.median(fresh)),
            "latency_sliced_over_exported": ratios,
        }
        print(label, json.dumps(found[label]), flush=True)
    return found


def parities() -> dict[str, Any]:
    """(d) Largest relative error of each target on torchvision networks with random weights."""
    found: dict[str, Any] = {}
    for name in plugins.names("targets"):
        try:
            target = plugins.load("targets", name)()
        except (TargetError, MissingExtraError) as error:
            found[name] = str(error)
            continue
        found[name] = {}
        for network in ("resnet18", "mobilenet_v2", "shufflenet_v2_x0_5"):
            module = load_network(f"torchvision:{network}")
            with tempfile.TemporaryDirectory() as folder:
                session = target.prepare(module, EXAMPLE, Path(folder))
                found[name][network] = parity(session, module, EXAMPLE)
        print(name, json.dumps(found[name]), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=6)
    parser.add_argument("--sessions", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--networks", type=int, default=12, help="per space, for the template")
    parser.add_argument("--parts", default="abcd")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "measuring.json")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.child is not None:
        child(arguments.child, arguments.sessions, arguments.rounds, arguments.seed)
        return
    old = json.loads(arguments.output.read_text()) if arguments.output.exists() and not arguments.again else {}
    result: dict[str, Any] = {"machine": machine(), **old}

    def keep(part: str, value: dict[str, Any]) -> None:
        result[part] = value
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
        print(part, json.dumps(value, indent=1), flush=True)

    if set("ab") & set(arguments.parts) and "agreement" not in result:
        outputs = processes(arguments)
        runs = [Rounds.of(o["rounds"]) for o in outputs]
        load = [str(o["machine"]["load_average"]) for o in outputs]
        keep("conditions", {"seconds_per_process": [o["seconds"] for o in outputs], "load_averages": load})
        keep("same_file", same_file(runs))
        keep("agreement", agreement(runs))
    if "c" in arguments.parts and "templates" not in result:
        keep("templates", templates(arguments.networks))
    if "d" in arguments.parts and "parity" not in result:
        keep("parity", parities())


if __name__ == "__main__":
    main()

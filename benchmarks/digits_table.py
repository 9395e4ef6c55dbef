"""The table that ships with sartor: all networks of the space `digits_widths`, trained on the task `digits`, and timed.

    python benchmarks/digits_table.py train --folder runs/digits_table
    python benchmarks/digits_table.py time --folder runs/digits_table
    python benchmarks/digits_table.py write --folder runs/digits_table --out src/sartor/tables/digits_widths.csv.gz

`train` and `time` append one JSON line per training and per sweep of timings; killed, they go on where they were. What
a search may see (`digits_valid_3`, `digits_valid_9`) is one training; what is reported (`digits_test_9`) is the mean
over the seeds. Seconds are those of the processor, of one training on one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sartor import archs
from sartor.core.contracts import Task
from sartor.core.records import Arch
from sartor.core.rng import derive, global_seed, numpy_rng
from sartor.jobs.fit.assemble import analytic_costs
from sartor.latency.samples import Sample
from sartor.latency.sweeps import Visit, combine
from sartor.spaces.digits_widths import DigitsWidths
from sartor.tabular import Table
from sartor.targets.onnxruntime import OnnxRuntime
from sartor.tasks.digits import digits
from sartor.timing.machine import machine
from sartor.timing.meter import Effort, Subject, time_together
from sartor.timing.rounds import Rounds
from sartor.training import Recipe, evaluate, fit

SHORT, LONG = 3, 9
"""Epochs of the two trainings; each has a schedule of its own."""
NOISY = 4.0


def task() -> Task:
    """360 images to train on, 359 to search by, 1,078 to report: little to learn from, so that widths matter."""
    return digits(size=8, valid=0.2, test=0.6, augment="")


def train(folder: Path, seeds: int) -> None:
    """All trainings that are not there yet, those that a search sees first."""
    space, data, file = DigitsWidths(), task(), folder / "trainings.jsonl"
    key, done = space.key, {(r["key"], r["epochs"], r["seed"]) for r in lines(file)}
    wanted = [(LONG, 0), (SHORT, 0), *((LONG, seed) for seed in range(1, seeds))]
    every = list(archs.enumerate_all(space))
    order = numpy_rng(0, "digits_table").permutation(len(every))  # wide networks take longest
    jobs = [(every[i], epochs, seed) for epochs, seed in wanted for i in order]
    jobs = [job for job in jobs if (key(job[0]), *job[1:]) not in done]
    begin = time.perf_counter()
    for i, (arch, epochs, seed) in enumerate(jobs, 1):
        append(file, {"key": key(arch), "epochs": epochs, "seed": seed, **trained(space, data, arch, epochs, seed)})
        if i % 20 == 0:
            left = (time.perf_counter() - begin) / i * (len(jobs) - i)
            print(f"{i} of {len(jobs)}, {left / 60:.0f} minutes left", flush=True)


def trained(space: DigitsWidths, data: Task, arch: Arch, epochs: int, seed: int) -> dict[str, float]:
    """Accuracies in per cent, and the seconds, of one training."""
    name = space.key(arch)
    with global_seed(derive(seed, "initialisation", name)):
        module = space.build(arch)
    begin = time.process_time()
    fit(module, data, Recipe(epochs=epochs, device="cpu"), seed=derive(seed, "training", name, epochs))
    seconds = time.process_time() - begin
    valid, test = (100 * evaluate(module, split(), data)["accuracy"] for split in (data.valid, data.test))
    return {"valid": valid, "test": test, "seconds": seconds}


def timed(folder: Path, sweeps: int, rounds: int) -> None:
    """Sweeps over all networks in the same rounds, each with fresh sessions: sessions of one file differ."""
    space, example, file = DigitsWidths(), task().example, folder / "sweeps.jsonl"
    every, target = list(archs.enumerate_all(space)), OnnxRuntime()
    make = target.template(space.build(archs.largest(space)), example)
    for sweep in range(len(lines(file)), sweeps):
        subjects = {space.key(arch): Subject(lambda a=arch: make(on_meta(space, a)), example) for arch in every}
        effort = replace(Effort.brief(rounds), warmup=0.02)
        (found,) = time_together(subjects, effort, seed=sweep, on_round=progress(sweep)).runs
        append(file, {"rounds": found.as_dict(), "target": dict(target.describe()), "machine": machine()})


def progress(sweep: int) -> Any:
    return lambda done, total: print(f"sweep {sweep}: round {done} of {total}", flush=True)


def on_meta(space: DigitsWidths, arch: Arch) -> torch.nn.Module:
    with torch.device("meta"):
        return space.build(arch)


def latencies(folder: Path) -> tuple[list[Sample], int]:
    """All networks in order, each with its milliseconds and their interval; and in how many rounds they were timed.

    Rounds much noisier than the quietest are left out: something else was using the processor.
    """
    every, blocks = list(archs.enumerate_all(DigitsWidths())), []
    for sweep, line in enumerate(lines(folder / "sweeps.jsonl")):
        found = Rounds.of(line["rounds"])
        logs = found.log(found.columns)  # one session of each network, in order
        rest = logs - np.median(logs, axis=0)
        noise = np.median(np.abs(rest - np.median(rest, axis=1, keepdims=True)), axis=1)
        blocks += [(noise[i], (sweep, i), row) for i, row in enumerate(found.seconds)]
    quiet = [(block, row) for noise, block, row in blocks if noise <= NOISY * min(n for n, *_ in blocks)]
    visits = [Visit(a, block, 1e3 * s) for block, row in quiet for a, s in zip(every, row, strict=True)]
    return combine(visits, DigitsWidths().reference), len(quiet)


def write(folder: Path, out: Path, results: Path) -> None:
    """The table, and the facts about it."""
    space = DigitsWidths()
    every, key = list(archs.enumerate_all(space)), space.key
    runs = {(r["key"], r["epochs"], r["seed"]): r for r in lines(folder / "trainings.jsonl")}
    seeds = [s for s in range(100) if all((key(a), LONG, s) in runs for a in every)]
    samples, rounds = latencies(folder)
    costs = analytic_costs(space)

    def column(name: str, epochs: int, over: list[int], digits_: int = 3) -> np.ndarray:
        return np.array([round(float(np.mean([runs[key(a), epochs, s][name] for s in over])), digits_) for a in every])

    short = all((key(a), SHORT, 0) in runs for a in every)
    columns = {
        **({"digits_valid_3": column("valid", SHORT, [0])} if short else {}),
        "digits_valid_9": column("valid", LONG, [0]),
        "digits_test_9": column("test", LONG, seeds),
        **({"digits_seconds_3": column("seconds", SHORT, [0])} if short else {}),
        "digits_seconds_9": column("seconds", LONG, [0]),
        "latency_ms_digits": np.array([round(s.latency_ms, 6) for s in samples]),
        "flops_M_digits": (costs["macs"](every) / 1e6).numpy(),
        "params_M_digits": (costs["params"](every) / 1e6).numpy(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    Table(out, columns, {key(a): i for i, a in enumerate(every)}, "digits").write(out)
    last = lines(folder / "sweeps.jsonl")[-1]
    facts = {
        "networks": len(every),
        "seeds": len(seeds),
        "bytes": out.stat().st_size,
        "rounds_of_timing": rounds,
        "latency_half_interval": float(np.median([(s.high - s.low) / 2 / s.latency_ms for s in samples])),
        "training_seconds": sum(r["seconds"] for r in runs.values()),
        "range": {name: [float(c.min()), float(c.max())] for name, c in columns.items()},
        "correlation": correlations(columns),
        "target": last["target"],
        "machine": last["machine"],
    }
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts, indent=1))


def correlations(columns: dict[str, np.ndarray]) -> dict[str, float]:
    """Of ranks, with what is reported."""
    ranks = {name: c.argsort().argsort() for name, c in columns.items()}
    return {n: float(np.corrcoef(r, ranks["digits_test_9"])[0, 1]) for n, r in ranks.items() if n != "digits_test_9"}


def lines(file: Path) -> list[dict[str, Any]]:
    """Whole lines only: the last may be torn."""
    return list(_whole(file)) if file.exists() else []


def _whole(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def append(file: Path, row: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    torn = file.exists() and not file.read_bytes().endswith(b"\n")
    with file.open("a") as out:
        out.write("\n" * torn + json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("train", "time", "write"))
    parser.add_argument("--folder", type=Path, default=Path("runs/digits_table"))
    parser.add_argument("--out", type=Path, default=Path("src/sartor/tables/digits_widths.csv.gz"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/digits_table.json"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--sweeps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.part == "train":
        train(arguments.folder, arguments.seeds)
    elif arguments.part == "time":
        timed(arguments.folder, arguments.sweeps, arguments.rounds)
    else:
        write(arguments.folder, arguments.out, arguments.results)


if __name__ == "__main__":
    main()

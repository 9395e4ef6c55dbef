"""A pool of students of the CIFAR-10 ResNet-20 whose weights are given, each trained briefly on the teacher's logits.

    python benchmarks/esnac_pool.py train --data DIR --weights DIR --folder runs/esnac_pool
    python benchmarks/esnac_pool.py write --weights DIR --folder runs/esnac_pool --out esnac_pool_cifar10.csv

Searches can be compared on such a pool with many seeds, as every network in it has been trained once, in the same way.
The first student is the teacher itself; the others are drawn as the space draws them, layers removed, groups of
channels narrowed, skips added. Most of those guess after a short training; so a third gets each layer and block that
was removed back with a probability of 0.5, another third with 0.8. `train` appends one JSON line per student; killed,
it goes on where it was, and several processes may share the work (`--part 0/2`, `--part 1/2`). `write` makes a table:
`arch_str` has the options of all choices with colons between; accuracies in per cent. The space reads it as its `pool`,
and is then down to these students (in the folder of this script, for the network's sake):

    sartor bench compression --table POOL.csv --space pool=POOL.csv --space network=esnac_pool:resnet20 \\
        --space weights=DIR/resnet20_cifar10.safetensors --objective compression --signal cifar10_valid_3

`embed` runs one search of `--evaluations` students on such a table and keeps its embedding in a folder, for searches on
another teacher's pool (`--set esnac.embedding.file=FOLDER`, with the same `hidden` and `layers`).

A student gets `--epochs` epochs over `--images` images (crop and flip), and is judged on `--valid` others after each,
and in the end on every fifth image of the test split (`--every`). With the defaults this is meant to take below two
hours on one core; `train` says how long is left.
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
from compress_resnet import MEAN, STD, Resnet
from safetensors.torch import load_file

from sartor.core.contracts import Problem, Task
from sartor.core.records import Arch, Objective, Proposal
from sartor.core.rng import derive, numpy_rng
from sartor.costs.macs import Macs
from sartor.costs.params import Params
from sartor.evaluators.distil import Distil
from sartor.jobs.bench import Bench, Stand
from sartor.run.runner import run
from sartor.spaces.compression import Compression
from sartor.supernet.lineage import kept_weights
from sartor.tabular import Table
from sartor.tasks.arrays import arrays
from sartor.training import evaluate

BACK = (0.0, 0.5, 0.8)
"""Students in turn get back what was removed of them with these probabilities."""


SEARCH = {"kernels": 4, "candidates": 300, "embedding": {"hidden": 32, "layers": 1, "updates": 30}}
"""Of `embed`: an LSTM of half the paper's size and a quarter of its depth, half the kernels: to keep to minutes."""


def resnet20() -> Resnet:
    """The teacher without its weights, for those who name networks."""
    return Resnet(20)


def resnet32() -> Resnet:
    """As `resnet20`."""
    return Resnet(32)


def teacher_of(args: argparse.Namespace) -> Compression:
    """The space of the teacher's students."""
    network = Resnet(args.depth).eval()
    network.load_state_dict(load_file(args.weights / f"resnet{args.depth}_cifar10.safetensors"))
    return Compression(network=network, size=32, steps=args.steps, coupled=args.coupled)


def drawn(space: Compression, count: int, seed: int) -> list[Arch]:
    """The teacher, and `count - 1` other students; a larger pool has the smaller one's students first."""
    rng, found = numpy_rng(seed, "esnac_pool"), {space.reference: None}
    removals = [choice.name.startswith(("keep:", "block:")) for choice in space.choices]
    while len(found) < count:
        back = rng.random(len(removals)) < BACK[len(found) % len(BACK)]
        arch = space.moves.draw(rng)
        mild = (1 if removal and b else a for a, removal, b in zip(arch, removals, back, strict=True))
        found[space.canonical(tuple(mild))] = None
    return list(found)


def task_of(args: argparse.Namespace) -> Task:
    """`images` to train on, `valid` to search by, one of `every` test images (sorted by class, maybe) to report."""
    total = args.images + args.valid
    task = arrays(
        train=args.data / "train.parquet",
        test=args.data / "test.parquet",
        subset=total,
        valid=args.valid / total,
        batch=args.batch,
        mean=MEAN,
        std=STD,
    )
    whole = task.test
    return replace(task, test=lambda: ((x[:: args.every], y[:: args.every]) for x, y in whole()))


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What decides the numbers: a folder holds those of one pool."""
    names = ("depth", "steps", "coupled", "seed", "images", "valid", "every", "epochs", "batch", "lr", "amp")
    return {name: getattr(args, name) for name in names}


def train(args: argparse.Namespace) -> None:
    """All students of this part that are not there yet."""
    args.folder.mkdir(parents=True, exist_ok=True)
    known = args.folder / "settings.json"
    if known.exists() and json.loads(known.read_text()) != settings(args):
        raise SystemExit(f"{known} is of another pool: {known.read_text()}")
    known.write_text(json.dumps(settings(args)))
    space, task = teacher_of(args), task_of(args)
    recipe = {"epochs": args.epochs, "lr": args.lr, "device": "cpu", "amp": args.amp}
    problem = Problem(space=space, objectives=(Objective("accuracy", "max"),), task=task.sealed())
    judge = Distil(problem, recipe=recipe, curve=True)
    part, parts = map(int, args.part.split("/"))
    file = args.folder / f"students_{part}_of_{parts}.jsonl"
    done = {tuple(line["arch"]) for line in lines(args.folder)}
    jobs = [arch for arch in drawn(space, args.students, args.seed)[part::parts] if arch not in done]
    begin = time.perf_counter()
    for i, arch in enumerate(jobs, 1):
        append(file, student(space, task, judge, arch, args))
        left = (time.perf_counter() - begin) / i * (len(jobs) - i)
        print(f"{i} of {len(jobs)}, {left / 60:.0f} minutes left", flush=True)


def student(space: Compression, task: Task, judge: Distil, arch: Arch, args: argparse.Namespace) -> dict[str, Any]:
    """One training; a student that diverges guesses."""
    kept, begin = args.folder / f"weights_{args.part.replace('/', '_of_')}.safetensors", time.process_time()
    seed = derive(args.seed, "student", space.key(arch))
    try:
        metrics = dict(judge.inherit(Proposal(arch), seed, parent=None, keep=kept))
    except ArithmeticError as error:
        chance = 1 / (task.classes or 1)
        curve = {f"accuracy_{e}": chance for e in range(1, args.epochs + 1)}
        metrics, test, note = {"accuracy": chance, **curve}, chance, str(error)
    else:
        network = space.build(arch)
        network.load_state_dict(kept_weights(kept)[1])
        test, note = evaluate(network, task.test(), task)["accuracy"], ""
        kept.unlink()
    return {"arch": arch, **metrics, "test": test, "seconds": time.process_time() - begin, "error": note}


def write(args: argparse.Namespace) -> None:
    """The table of all students that are there, and facts about it."""
    for name, value in json.loads((args.folder / "settings.json").read_text()).items():
        setattr(args, name, value)
    space, found = teacher_of(args), {tuple(line["arch"]): line for line in lines(args.folder)}
    every = [arch for arch in drawn(space, args.students, args.seed) if arch in found]
    rows = [found[arch] for arch in every]
    columns = {
        **{f"cifar10_valid_{e}": percent([row[f"accuracy_{e}"] for row in rows]) for e in range(1, args.epochs + 1)},
        f"cifar10_test_{args.epochs}": percent([row["test"] for row in rows]),
        f"cifar10_seconds_{args.epochs}": np.array([round(row["seconds"], 3) for row in rows]),
        "flops_M_cifar10": (Macs(space)(every) / 1e6).numpy(),
        "params_M_cifar10": (Params(space)(every) / 1e6).numpy(),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Table(args.out, columns, {space.key(a): i for i, a in enumerate(every)}, "cifar10").write(args.out)
    facts = {
        **settings(args),
        "students": len(every),
        "cpu_hours": sum(row["seconds"] for row in rows) / 3600,
        "failed": sum(bool(row["error"]) for row in rows),
        "teacher": {n: float(c[0]) for n, c in columns.items()} if every[:1] == [space.reference] else None,
        "quartiles": {n: np.quantile(c, [0, 0.25, 0.5, 0.75, 1]).round(3).tolist() for n, c in columns.items()},
    }
    args.out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts, indent=1))


def embed(args: argparse.Namespace) -> None:
    """The embedding of one search on a table."""
    weights = str(args.weights / f"resnet{args.depth}_cifar10.safetensors")
    space = {"name": "compression", "network": f"esnac_pool:resnet{args.depth}", "weights": weights}
    stand = Stand(
        Bench(
            space={**space, "pool": str(args.table), "steps": args.steps, "coupled": args.coupled},
            table=str(args.table),
            strategies={"esnac": {**SEARCH, "trials": args.evaluations}},
            evaluations=args.evaluations,
            seed=args.seed,
            signal=f"cifar10_valid_{args.epochs}",
            objective="compression",
        )
    )
    run(stand.strategy("esnac", 0), stand.problem, stand.evaluator, folder=args.out, seed=args.seed)


def percent(values: list[float]) -> np.ndarray:
    return np.array([round(100 * value, 3) for value in values])


def append(file: Path, line: dict[str, Any]) -> None:
    """A line that begins on a line of its own, also after a torn one."""
    torn = file.exists() and not file.read_bytes().endswith(b"\n") and file.stat().st_size
    with file.open("a") as out:
        out.write(("\n" if torn else "") + json.dumps(line) + "\n")


def lines(folder: Path) -> Iterator[dict[str, Any]]:
    """Of all parts; a torn line is left out."""
    for file in sorted(folder.glob("students_*.jsonl")):
        for text in file.read_text().splitlines():
            try:
                yield json.loads(text)
            except json.JSONDecodeError:
                continue


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "write", "embed"])
    parser.add_argument("--data", type=Path, help="folder with train.parquet and test.parquet")
    parser.add_argument("--weights", type=Path, required=True, help="folder with resnet20_cifar10.safetensors")
    parser.add_argument("--folder", type=Path, help="of train and write: the students")
    parser.add_argument("--out", type=Path, help="of write the table, of embed a folder")
    parser.add_argument("--table", type=Path, help="of embed")
    parser.add_argument("--evaluations", type=int, default=150, help="of embed")
    parser.add_argument("--students", type=int, default=300)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--coupled", default="groups", choices=["groups", "channels"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--valid", type=int, default=1000)
    parser.add_argument("--every", type=int, default=5, help="one of so many test images is looked at")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--amp", default="bfloat16", choices=["", "bfloat16"])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    work, needed = {
        "train": (train, ("data", "folder")),
        "write": (write, ("folder", "out")),
        "embed": (embed, ("table", "out")),
    }[args.what]
    missing = [f"--{name}" for name in needed if getattr(args, name) is None]
    if missing:
        parser.error(f"{args.what} needs {' and '.join(missing)}")
    work(args)


if __name__ == "__main__":
    main()

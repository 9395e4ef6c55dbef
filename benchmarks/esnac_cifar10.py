"""ESNAC on a trained CIFAR-10 ResNet: its best student against uniform widths and Torch-Pruning, trained alike.

A search evaluates `--trials` students, each trained for `--brief` epochs on `--few` images and the teacher's logits,
and maximises the reward C (2 - C) A / A_teacher; esnac trains its six best ones four times as long. Its best student,
the uniformly narrowed teacher with as many parameters and Torch-Pruning's network with as many are then trained in the
same way: `--epochs` epochs on `--images` images, with the teacher. Everything is kept in the work folder: killed, the
same command goes on.

    python benchmarks/esnac_cifar10.py --data DIR --weights DIR --work DIR --depth 32 --out OUT.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from compress_resnet import MEAN, OURS, STD
from compress_resnet import Compression as Comparison
from compress_resnet import parser as common
from torch import nn

from sartor import archs, config
from sartor.core import files, plugins
from sartor.core.contracts import Problem, Task
from sartor.core.records import Arch, Objective
from sartor.core.rng import derive, global_seed
from sartor.costs.params import Params
from sartor.evaluators.distil import Distil
from sartor.networks import macs_params
from sartor.rewards import compression
from sartor.run.journal import FileJournal, read_trials
from sartor.run.runner import run
from sartor.spaces.compression import Compression
from sartor.tasks.arrays import arrays

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "esnac": {
        "batch": 6,
        "kernels": 6,
        "embedding": {"hidden": 32, "layers": 1, "updates": 50},
        "maximise": "local",
        "narrowed": 4,
        "fidelity": 0.25,
        "best": 6,
    },
    "n2n": {},
    "random_search": {},
}


class Shrinking(Comparison):
    """One teacher, and students of it."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self.space = Compression(network=self.original, size=32)
        self.params = macs_params(self.original, self.task.example)[1]
        self.teacher = 0.0

    def brief(self) -> Task:
        """The few images of a search, and as many to judge by."""
        few = self.args.few
        return arrays(
            train=self.args.data / "train.parquet",
            test=self.args.data / "test.parquet",
            subset=2 * few,
            valid=0.5,
            batch=64,
            mean=MEAN,
            std=STD,
        ).sealed()

    def best(self, strategy: str, seed: int, folder: Path) -> tuple[Arch, dict[str, float]]:
        """The student with the largest reward in a search, and what the search was."""
        problem = Problem(
            space=self.space,
            objectives=(Objective("accuracy", "max"),),
            costs={"params": Params(self.space)},
            task=self.brief(),
        )
        settings = {**SETTINGS[strategy], "trials": self.args.trials}
        if self.args.embedding and strategy == "esnac":
            settings["embedding"] = {**settings["embedding"], "file": str(self.args.embedding)}
        search = config.call(plugins.load("strategies", strategy), settings, problem, seed)
        epochs = round(self.args.brief / settings.get("fidelity", 1.0))
        judge = Distil(problem, recipe={"epochs": epochs, "lr": 2e-3, "device": "cpu", "amp": "bfloat16"})
        start = time.process_time()
        run(search, problem, judge, folder=folder, seed=seed)
        trials = [t for t in read_trials(FileJournal(folder / "journal.jsonl")) if t.ok]
        reference = next((t.metrics["accuracy"] for t in trials if t.arch == self.space.reference), 1.0)
        rewards = [compression(t.metrics["params"] / self.params, t.metrics["accuracy"], reference) for t in trials]
        top = max(range(len(trials)), key=lambda i: (trials[i].fidelity, rewards[i]))
        facts = {
            "reward_in_search": rewards[top],
            "students": len(trials),
            "search_cpu_seconds": time.process_time() - start,
        }
        return trials[top].arch, facts

    def narrowed(self, params: int) -> nn.Module:
        """The teacher with all widths by one factor, not above so many parameters if that can be."""
        fine = Compression(network=self.original, size=32, steps=64)
        cost = Params(fine)
        found = (fine.scaled(f / 500) for f in range(500, 20, -1))
        return fine.build(next(a for a in found if cost([a])[0] <= params))

    def pruned(self, params: int) -> nn.Module:
        """Torch-Pruning by group norms, uniformly, until there are no more parameters."""
        return self.pruned_until(
            "gn_uniform", lambda n: macs_params(n, self.task.example)[1] <= params, ratio=0.95, steps=400
        )

    def row(self, network: nn.Module, seed: int, folder: Path) -> dict[str, float]:
        """Trained to the end."""
        found = self.finished(network, seed, folder=folder, **OURS)
        share = found["params"] / self.params
        return {
            **found,
            "share_of_params": share,
            "compression": 1 - share,
            "reward": compression(share, found["accuracy"], self.args.teacher),
        }


def main() -> None:
    options = common(__doc__, ["esnac", "random_search"])
    options.add_argument("--trials", type=int, default=40)
    options.add_argument("--few", type=int, default=2000)
    options.add_argument("--brief", type=int, default=2)
    options.add_argument("--teacher", type=float, default=0.9263, help="its test accuracy")
    options.add_argument("--embedding", type=Path, help="of a search on another teacher")
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    job = Shrinking(args)
    for seed in args.seeds:
        base = args.work / f"resnet{args.depth}" / f"seed{seed}"
        for strategy in args.methods:
            folder = base / strategy
            arch, facts = job.best(strategy, derive(seed, "search"), folder / "search")
            (folder / "arch.json").write_text(json.dumps(archs.describe(job.space, arch)))
            student = job.space.build(arch)
            params = macs_params(student, job.task.example)[1]
            makers: dict[str, Callable[[], nn.Module]] = {
                strategy: lambda s=student: s,
                f"uniform widths, the size of {strategy}'s": lambda p=params: job.narrowed(p),
                f"torch_pruning, the size of {strategy}'s": lambda p=params: job.pruned(p),
            }
            for i, (name, make) in enumerate(makers.items()):
                place = folder / f"train{i}"
                once(folder / f"row{i}.json", name, lambda m=make, s=seed, p=place: job.row(m(), s, p))
            once(folder / "search.json", f"{strategy}'s search", lambda f=facts: f)
    if args.out:
        summarise(args)


def once(file: Path, name: str, work: Callable[[], dict[str, float]]) -> None:
    """A result, found once."""
    if not file.exists():
        with global_seed(derive(0, str(file.name))):
            found = work()
        files.atomically(file, lambda part: part.write_text(json.dumps({"name": name, **found})))
    row = json.loads(file.read_text())
    print(f"{row.pop('name'):44s}", {k: round(v, 4) for k, v in row.items()}, flush=True)


def summarise(args: argparse.Namespace) -> None:
    """All rows in the work folder."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for file in sorted((args.work / f"resnet{args.depth}").glob("seed*/*/*.json")):
        if file.name != "arch.json":
            row = json.loads(file.read_text())
            rows.setdefault(row.pop("name"), []).append(row)
    keys = ("depth", "images", "epochs", "trials", "few", "brief", "teacher")
    settings = {key: getattr(args, key) for key in keys}
    args.out.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

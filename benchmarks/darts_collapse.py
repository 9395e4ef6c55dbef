"""DARTS on NATS-Bench's topologies: how its cell turns into skip connections, epoch by epoch.

The search is the paper's (no costs, constant steps of the preferences, nothing that holds them back) on a slim supernet
and a part of CIFAR-10 in small images; the derived cell has the likeliest operation on every edge, as the benchmark's
authors derive it. Its accuracy is the published test accuracy after 200 epochs of the network with these operations.
The authors report 59.84 (first order) and 65.38 (second order), averages of networks with little but skips; the cell of
skips alone has 54.30, the average network 87.06.

    OMP_NUM_THREADS=1 python benchmarks/darts_collapse.py --data DIR --table nats_topology_cifar10.csv.gz --work DIR \\
        --out benchmarks/results/darts_collapse_0.01.json

Each search is kept in the work folder: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from oneshot_ranking import parser, problem_of

from sartor.core import files
from sartor.core.contracts import Problem
from sartor.core.records import Arch
from sartor.evaluators.inherited import Inherited
from sartor.run.runner import run
from sartor.spaces.nats_topology import NatsTopology
from sartor.strategies.darts import Darts
from sartor.tabular import Table

SKIP = "skip_connect"
PUBLISHED = {1: 59.84, 2: 65.38}
"""Dong et al., NATS-Bench, TPAMI 2021: test accuracy on CIFAR-10."""


class Watch:
    """What is derived after every epoch, kept in a file."""

    def __init__(self, search: Darts, space: NatsTopology, table: Table, path: Path) -> None:
        self.search, self.space, self.table, self.path = search, space, table, path
        self.epochs: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []

    def __call__(self, _step: int) -> None:
        done = self.search.training.done
        preferences = self.search.controller.preferences
        probs = preferences.rows(preferences.probs().detach())
        arch: Arch = tuple(int(p.argmax()) for p in probs)
        names = [c.options[a] for c, a in zip(self.space.choices, arch, strict=True)]
        row = {
            "epoch": done,
            "cell": self.space.key(arch),
            "skips": names.count(SKIP),
            "weights": {str(o): float(m) for o, m in zip(self.space.choices[0].options, sum(probs) / 6, strict=True)},
            "accuracy": accuracy(self.table, self.space, arch),
        }
        self.epochs = [*[e for e in self.epochs if e["epoch"] < done], row]
        files.atomically(self.path, lambda part: part.write_text(json.dumps(self.epochs)))


def accuracy(table: Table, space: NatsTopology, arch: Arch) -> float:
    """The published test accuracy, in per cent."""
    return float(table.column(table.best_signal())[table.line(space, arch)])


def searched(args: argparse.Namespace, problem: Problem, table: Table, order: int, seed: int) -> dict[str, Any]:
    """One search, epoch by epoch; a finished one is read."""
    folder = args.work / f"order{order}_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    search = Darts(
        problem,
        seed,
        epochs=args.epochs,
        order=order,
        arch_lr=args.arch_lr,
        arch_schedule="constant",
        temperature=0.0,
        penalty="none",
        affine=args.affine,
    )
    watch = Watch(search, problem.space, table, folder / "epochs.json")
    judge = Inherited(problem, supernet=folder / "artifacts/supernet.safetensors", device="cpu")
    begun = time.process_time()
    run(search, problem, judge, folder=folder, seed=seed, on_step=watch)
    last, best = watch.epochs[-1], max(watch.epochs, key=lambda e: e["accuracy"])
    return {
        "order": order,
        "seed": seed,
        "cell": last["cell"],
        "skips": last["skips"],
        "accuracy": last["accuracy"],
        "best_on_the_way": best["accuracy"],
        "published": PUBLISHED[order],
        "epochs": watch.epochs,
        "cpu_seconds_of_this_session": time.process_time() - begun,
    }


def context(table: Table, space: NatsTopology) -> dict[str, float]:
    """What the derived cells are to be compared with."""
    every = table.column(table.best_signal())
    skips = tuple(c.options.index(SKIP) for c in space.choices)
    return {"mean": float(every.mean()), "best": float(every.max()), "all_skips": accuracy(table, space, skips)}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--orders", nargs="+", type=int, default=[1, 2])
    arguments.add_argument("--epochs", type=int, default=50)
    arguments.add_argument("--arch-lr", type=float, default=1e-2, help="the paper's is 3e-4, for 25 times the steps")
    arguments.add_argument("--affine", action="store_true", help="norms of operations learn scales; the paper's do not")
    arguments.set_defaults(images=1000, valid=1000, size=8, cells=5)
    args = arguments.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    problem = problem_of(args)
    table = Table.read(args.table, problem.space)
    around = context(table, problem.space)
    print(", ".join(f"{name}: {value:.2f}" for name, value in around.items()), flush=True)
    rows = []
    for seed in args.seeds:
        for order in args.orders:
            rows.append(row := searched(args, problem, table, order, seed))
            course = " ".join(str(e["skips"]) for e in row["epochs"])
            print(
                f"order {order}, seed {seed}: {row['cell']}, {row['skips']} skips, {row['accuracy']:.2f} (published "
                f"{row['published']:.2f}), best on the way {row['best_on_the_way']:.2f}; skips by epoch: {course}; "
                f"{row['cpu_seconds_of_this_session']:.0f} s",
                flush=True,
            )
            if args.out:
                settings = {k: v for k, v in vars(args).items() if not isinstance(v, Path)}
                found = {"table": args.table.name, "settings": settings, "context": around, "rows": rows}
                args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

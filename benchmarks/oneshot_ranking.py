"""How well networks with shared weights rank like networks trained alone: Kendall's tau on NATS-Bench's topologies.

A real supernet of a slim `nats_topology` is trained on a part of CIFAR-10 in small images. Random networks are cut out
of it, their batch-norm statistics taken anew, and their accuracy on held-out images compared with the published test
accuracy of the whole network after 200 epochs. Beside the trainings (`dropout`: Bender et al.; `uniform`: one path;
`fair`): the same networks from the supernet untrained, their MACs, and (`alone`) the first `--few` of them each trained
on its own on the same images for `--epochs-alone` epochs, which is what shared weights stand for.

    OMP_NUM_THREADS=1 python benchmarks/oneshot_ranking.py --data DIR --table nats_topology_cifar10.csv.gz --work DIR \\
        --out benchmarks/results/oneshot_ranking.json

Each search is kept in the work folder: the same command goes on where it was stopped, another list of seeds or methods
adds to it. Intervals are bootstrapped over the networks (95 %).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy.stats import kendalltau
from torch.nn import functional

from sartor.core import files
from sartor.core.contracts import Batch, Problem, Task
from sartor.core.records import Arch, Objective, Proposal
from sartor.core.rng import derive, global_seed, numpy_rng
from sartor.costs.macs import Macs
from sartor.evaluators.inherited import Inherited
from sartor.run.journal import FileJournal, read_trials
from sartor.run.runner import run
from sartor.spaces.nats_topology import NatsTopology
from sartor.strategies.one_shot import OneShot
from sartor.tabular import Table
from sartor.tasks.arrays import arrays
from sartor.training import Recipe, evaluate, fit

TRAININGS = ("uniform", "dropout", "fair")
DRAWS = 1000
"""Of the bootstrap."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shrunk:
    """Batches of images, averaged over squares of pixels."""

    batches: Any
    factor: int

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return ((functional.avg_pool2d(x, self.factor), y) for x, y in self.batches)


def parser(description: str | None) -> argparse.ArgumentParser:
    """What a benchmark on a slim supernet of the topologies is told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--table", type=Path, required=True, help="published accuracies of all topologies, CSV")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=16, choices=(32, 16, 8), help="of images")
    parser.add_argument("--cells", type=int, default=1, help="per stage; the published networks have 5")
    parser.add_argument("--images", type=int, default=10000, help="for training")
    parser.add_argument("--valid", type=int, default=1000, help="held-out images")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def task_of(args: argparse.Namespace) -> Task:
    """A part of CIFAR-10 in small images; the split does not depend on the seed of a run."""
    whole = args.images + args.valid
    task = arrays(
        train=args.data / "train.parquet",
        test=args.data / "test.parquet",
        subset=whole,
        valid=args.valid / whole,
        batch=args.batch,
    )

    def small(batches: Callable[..., Iterable[Batch]]) -> Callable[..., Shrunk]:
        return lambda *given: Shrunk(batches(*given), 32 // args.size)

    example = functional.avg_pool2d(task.example, 32 // args.size)
    return replace(task, train=small(task.train), valid=small(task.valid), test=small(task.test), example=example)


def problem_of(args: argparse.Namespace) -> Problem:
    """Among all names, as the table has them; no limits."""
    space = NatsTopology(size=args.size, cells=args.cells, merge="none")
    return Problem(space, (Objective("accuracy", "max"),), task=task_of(args).sealed())


def tau(one: Floats, two: Floats, seed: int = 0) -> dict[str, float]:
    """Kendall's tau-b with its interval over the networks."""
    rng, n = numpy_rng(seed, "bootstrap"), len(one)
    drawn = rng.integers(n, size=(DRAWS, n))
    found = [kendalltau(one[i], two[i]).statistic for i in drawn]
    low, high = np.nanquantile(found, [0.025, 0.975])
    return {"tau": float(kendalltau(one, two).statistic), "low": float(low), "high": float(high)}


def trained(args: argparse.Namespace, problem: Problem, method: str, seed: int) -> tuple[dict[Arch, float], float]:
    """The accuracies of random networks with the weights of a training, and its last loss."""
    folder = args.work / f"{method}_{seed}"
    search = OneShot(
        problem, seed, epochs=args.epochs, paths=method, samples=args.archs, refine=0, lr=args.lr, ghost=args.ghost
    )
    weights = folder / "artifacts/supernet.safetensors"
    judge = Inherited(problem, supernet=weights, calibrate=args.calibrate, device="cpu")
    run(search, problem, judge, folder=folder, seed=seed)
    journal = FileJournal(folder / "journal.jsonl")
    losses = [record["loss"] for record in journal.read() if record["kind"] == "log" and "loss" in record]
    return {t.arch: t.metrics["accuracy"] for t in read_trials(journal)}, losses[-1] if losses else float("nan")


def untrained(args: argparse.Namespace, problem: Problem, seed: int, drawn: Iterable[Arch]) -> dict[Arch, float]:
    """The accuracies of the same networks with initial weights and their own statistics."""
    path = args.work / f"untrained_{seed}.safetensors"
    with global_seed(derive(seed, "init")):  # what the trainings start from
        net = problem.space.supernet()
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, path)
    judge = Inherited(problem, supernet=path, calibrate=args.calibrate, device="cpu")
    return {arch: judge(Proposal(arch), seed)["accuracy"] for arch in drawn}


def alone(args: argparse.Namespace, problem: Problem, seed: int, drawn: Iterable[Arch]) -> dict[Arch, float]:
    """The accuracies of networks that were each trained on its own; those on file are read."""
    path, task = args.work / f"alone_{seed}_networks.json", problem.task
    assert task is not None
    found: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    for arch in drawn:
        if (name := problem.space.key(arch)) in found:
            continue
        with global_seed(derive(seed, "init")):
            network = problem.space.build(arch).to(memory_format=torch.channels_last)
        fit(network, task, Recipe(epochs=args.epochs_alone, lr=args.lr * args.batch / 256), seed=derive(seed, "alone"))
        found[name] = evaluate(network, task.valid(), task)["accuracy"]
        files.atomically(path, lambda part: part.write_text(json.dumps(found)))
    return {arch: found[problem.space.key(arch)] for arch in drawn}


def compared(found: dict[Arch, float], space: NatsTopology, table: Table) -> dict[str, Any]:
    """Tau of accuracies, and among the better half of the networks (by the table), where it is harder."""
    drawn = list(found)
    true = table.column(table.best_signal())[[table.line(space, a) for a in drawn]]
    shared, macs = np.array([found[a] for a in drawn]), Macs(space)(drawn).numpy()
    top = true >= np.median(true)
    best = drawn[int(shared.argmax())]
    return {
        "networks": len(drawn),
        **tau(shared, true),
        "top_half": tau(shared[top], true[top]),
        "macs": tau(macs, true),
        "macs_top_half": tau(macs[top], true[top]),
        "shared_best": float(shared.max()),
        "shared_mean": float(shared.mean()),
        "true_of_best": float(table.column(table.best_signal())[table.line(space, best)]),
        "true_best": float(true.max()),
        "true_mean": float(true.mean()),
    }


def one(args: argparse.Namespace, problem: Problem, table: Table, method: str, seed: int) -> dict[str, Any]:
    """A row; done rows are read."""
    path = args.work / f"{method}_{seed}.json"
    if path.exists():
        return json.loads(path.read_text())
    begun, loss = time.process_time(), None
    if method in ("untrained", "alone"):
        rng = numpy_rng(seed, "draws")  # as the strategy draws: the same networks
        drawn = list(dict.fromkeys(problem.space.moves.draw(rng) for _ in range(args.archs)))
        own = method == "alone"
        found = alone(args, problem, seed, drawn[: args.few]) if own else untrained(args, problem, seed, drawn)
    else:
        found, loss = trained(args, problem, method, seed)
    row = {"method": method, "seed": seed, "loss": loss, **compared(found, problem.space, table)}
    row["cpu_seconds"] = time.process_time() - begun
    files.atomically(path, lambda part: part.write_text(json.dumps(row)))
    return row


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--methods", nargs="+", default=["untrained", "uniform", "dropout"])
    arguments.add_argument("--archs", type=int, default=200, help="networks to rank")
    arguments.add_argument("--epochs", type=int, default=12)
    arguments.add_argument("--few", type=int, default=40, help="networks to train alone")
    arguments.add_argument("--epochs-alone", type=int, default=12)
    arguments.add_argument("--lr", type=float, default=0.1, help="per 256 images")
    arguments.add_argument("--ghost", type=int, default=32, help="images that share a path")
    arguments.add_argument("--calibrate", type=int, default=8, help="batches for batch-norm statistics")
    args = arguments.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    problem = problem_of(args)
    table = Table.read(args.table, problem.space)
    rows = []
    for seed in args.seeds:
        for method in args.methods:
            rows.append(row := one(args, problem, table, method, seed))
            print(
                f"{method} {seed}: tau {row['tau']:.3f} [{row['low']:.3f}, {row['high']:.3f}], top half "
                f"{row['top_half']['tau']:.3f}; MACs {row['macs']['tau']:.3f}, top half "
                f"{row['macs_top_half']['tau']:.3f}; accuracy {row['shared_mean']:.3f} on average, best "
                f"{row['shared_best']:.3f}, which trained alone has {row['true_of_best']:.2f}; "
                f"{row['cpu_seconds']:.0f} s",
                flush=True,
            )
            if args.out:
                settings = {k: v for k, v in vars(args).items() if not isinstance(v, Path)}
                found = {"table": args.table.name, "signal": table.best_signal(), "settings": settings, "rows": rows}
                args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

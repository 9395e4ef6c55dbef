"""A trained CIFAR-10 ResNet at half and at 30 % of its MACs: sartor against Torch-Pruning and uniform scaling.

Everything gets the same fine-tuning: the same images, epochs, batches and learning rate. sartor's rows add
distillation from the original network; so does one row of Torch-Pruning, to tell what is due to what. Each result is
kept in the work folder: the same command goes on where it was stopped, and processes can share the rows out.

    python benchmarks/compress_resnet.py --data DIR --weights FILE --work DIR --out benchmarks/results/compress.json
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from sartor import archs
from sartor.core import files, plugins
from sartor.core.contracts import Evaluator, Problem, Task
from sartor.core.records import Arch, Constraint, Objective
from sartor.core.rng import derive, global_seed
from sartor.costs.macs import Macs
from sartor.evaluators.finetune import Finetune
from sartor.evaluators.inherited import Inherited
from sartor.evaluators.reconstructed import Reconstructed
from sartor.networks import macs_params
from sartor.run.runner import run
from sartor.spaces.widths import Widths
from sartor.supernet.calibrate import recalibrate
from sartor.tasks.arrays import arrays
from sartor.training import Recipe, evaluate, fit

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two 3x3 convolutions; where the size changes, the shortcut takes every second pixel and pads channels."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.margin = (c_out - c_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        if self.margin:
            x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.margin, self.margin))
        return relu(y + x)


class Resnet(nn.Module):
    """The CIFAR ResNet of He et al. (2016), section 4.2, whose trained weights are given; normalises its input."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        count = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = (16, 16, 32, 64)
        for s in (1, 2, 3):
            blocks = [
                Block(widths[s - 1] if b == 0 else widths[s], widths[s], 2 if s > 1 and b == 0 else 1)
                for b in range(count)
            ]
            self.add_module(f"layer{s}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def parser(description: str | None, methods: Sequence[str]) -> argparse.ArgumentParser:
    """What every comparison on these networks is told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--weights", type=Path, required=True, help="folder with resnet20_cifar10.safetensors, ...")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--methods", nargs="+", default=list(methods))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--epochs", type=int, default=3)
    return parser


def averaged(found: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Means over seeds, and the accuracy of each."""
    each = [f["accuracy"] for f in found]
    return {
        "seeds": len(found),
        **{k: statistics.mean(f[k] for f in found) for k in found[0]},
        "accuracy_each": each,
        "spread": statistics.stdev(each) if len(each) > 1 else None,
    }


class Compression:
    """The data, the trained network, and the ways to make it smaller."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.task: Task = arrays(
            train=args.data / "train.parquet",
            test=args.data / "test.parquet",
            subset=round(args.images / 0.9),
            valid=0.1,
            mean=MEAN,
            std=STD,
        )
        self.original = Resnet(args.depth).eval()
        weights = load_file(args.weights / f"resnet{args.depth}_cifar10.safetensors")
        self.original.load_state_dict(weights)
        self.macs = macs_params(self.original, self.task.example)[0]

    def torch_pruning(self, kind: str, share: float) -> nn.Module:
        """Iterative pruning until the MACs are inside, as its README does it."""
        return self.pruned_until(kind, lambda n: macs_params(n, self.task.example)[0] <= share * self.macs)

    def pruned_until(
        self, kind: str, small: Callable[[nn.Module], bool], *, ratio: float = 0.9, steps: int = 200
    ) -> nn.Module:
        """Torch-Pruning on its way to `ratio`, up to the first of its steps that is small enough."""
        importance, reach = kind.split("_")
        network = copy.deepcopy(self.original)
        measure = {
            "l1": torch_pruning.importance.MagnitudeImportance(p=1, group_reduction="first"),
            "gn": torch_pruning.importance.GroupMagnitudeImportance(p=2),
        }[importance]
        pruner = torch_pruning.pruner.BasePruner(
            network,
            self.task.example,
            importance=measure,
            global_pruning=reach == "global",
            pruning_ratio=ratio,
            iterative_steps=steps,
            ignored_layers=[network.linear],
        )
        while not small(network):
            pruner.step()
        return network

    def space(self, steps: int = 16, reconstruct: int = 512, *, blocks: bool = False) -> Widths:
        multipliers = [k / steps for k in range(steps // 8, steps + 1)]
        return Widths(
            network=self.original,
            input_shape=(3, 32, 32),
            divisor=1,
            multipliers=multipliers,
            reconstruct=reconstruct,
            blocks=blocks,
        )

    def problem(self, space: Widths, share: float) -> Problem:
        cost = Macs(space)
        return Problem(
            space=space,
            objectives=(Objective("accuracy", "max"),),
            constraints=(Constraint("macs", share * self.macs),),
            costs={"macs": cost},
            task=self.task.sealed(),
        )

    def uniform(self, share: float) -> nn.Module:
        """Every width by the same factor; the filters with the largest norms stay."""
        space = self.space(64)
        return space.build(self.scaled(space, share))

    def fitted(self, share: float) -> nn.Module:
        """The same, and its layers fitted to the original's."""
        space = self.space(64)
        return self.built(space, self.scaled(space, share))

    def scaled(self, space: Widths, share: float) -> Arch:
        """The largest uniformly scaled arch inside."""
        cost = Macs(space)
        found = (space.scaled(f / 1000) for f in range(1000, 50, -5))
        return next(arch for arch in found if cost([arch])[0] <= share * self.macs)

    def built(self, space: Widths, arch: Arch) -> nn.Module:
        """As the main job does it: cut, then fitted to the original, layer by layer."""
        network = space.build(arch)
        space.reconstruct(arch, network, self.task.train(torch.Generator().manual_seed(1)))
        return network

    def searched(self, share: float, seed: int, *, strategy: str, folder: Path, **settings: Any) -> nn.Module:
        """A strategy's answer, judged by its supernet."""
        space = self.space()
        problem = self.problem(space, share)
        judge = Inherited(problem, supernet=folder / "artifacts/supernet.safetensors", calibrate=2, device="cpu")
        return self.built(space, answered(problem, judge, seed, folder, strategy, **settings))

    def shrunk(self, share: float, folder: Path, judge: Callable[[Problem], Evaluator]) -> nn.Module:
        """NetAdapt's walk, the same for all seeds."""
        space = self.space(reconstruct=256)
        problem = self.problem(space, share)
        arch = answered(problem, judge(problem), 0, folder, "netadapt", step=0.06, decay=1.0)
        return self.built(self.space(), arch)

    def modelled(self, share: float, seed: int, folder: Path, trials: int = 120) -> nn.Module:
        """LayerNAS's best of the networks that it reconstructs; blocks may go."""
        space = self.space(8, reconstruct=256, blocks=True)
        problem = self.problem(space, share)
        arch = answered(problem, _by_reconstruction(problem), seed, folder, "layernas", trials=trials)
        return self.built(self.space(8, blocks=True), arch)

    def finished(
        self, network: nn.Module, seed: int, *, folder: Path, lr: float = 0.05, distil: float = 0.0
    ) -> dict[str, float]:
        """Fine-tune and test."""
        before = copy.deepcopy(network)
        recalibrate(before, islice(self.task.train(torch.Generator().manual_seed(0)), 16))
        raw = evaluate(before, self.task.test(), self.task)["accuracy"]
        recipe = Recipe(epochs=self.args.epochs, lr=lr, device="cpu", distil_weight=distil, warmup=0.2, amp="bfloat16")
        teacher = self.original if distil else None
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = folder / "state.safetensors"
        fit(network, self.task, recipe, seed=derive(seed, "tune"), teacher=teacher, checkpoint=checkpoint)
        macs, params = macs_params(network, self.task.example)
        accuracy = evaluate(network, self.task.test(), self.task)["accuracy"]
        return {"accuracy": accuracy, "recalibrated_only": raw, "macs": macs / self.macs, "params": params}


def answered(problem: Problem, judge: Evaluator, seed: int, folder: Path, strategy: str, **settings: Any) -> Arch:
    """What a strategy names, run or gone on with; in words it is kept in the folder, too."""
    search = plugins.load("strategies", strategy)(problem, seed, **settings)
    run(search, problem, judge, folder=folder, seed=seed)
    arch: Arch = search.solve(problem.limits())
    (folder / "arch.json").write_text(json.dumps(archs.describe(problem.space, arch)))
    return arch


def _tp(kind: str, **training: float) -> Callable[..., dict[str, float]]:
    def work(job: Compression, share: float, seed: int, folder: Path) -> dict[str, float]:
        return job.finished(job.torch_pruning(kind, share), seed, folder=folder, **training)

    return work


def _uniform(**training: float) -> Callable[..., dict[str, float]]:
    def work(job: Compression, share: float, seed: int, folder: Path) -> dict[str, float]:
        return job.finished(job.uniform(share), seed, folder=folder, **training)

    return work


def _fitted(**training: float) -> Callable[..., dict[str, float]]:
    def work(job: Compression, share: float, seed: int, folder: Path) -> dict[str, float]:
        return job.finished(job.fitted(share), seed, folder=folder, **training)

    return work


def _search(strategy: str, **settings: Any) -> Callable[..., dict[str, float]]:
    def work(job: Compression, share: float, seed: int, folder: Path) -> dict[str, float]:
        return _found(
            job,
            seed,
            folder,
            lambda: job.searched(share, seed, strategy=strategy, folder=folder / "search", **settings),
        )

    return work


def _shrink(method: str, judge: Callable[[Problem], Evaluator]) -> Callable[..., dict[str, float]]:
    def work(job: Compression, share: float, seed: int, folder: Path) -> dict[str, float]:
        return _found(job, seed, folder, lambda: job.shrunk(share, folder.parent / f"{method}-{share:g}-search", judge))

    return work


def _layernas(job: Compression, share: float, seed: int, folder: Path) -> dict[str, float]:
    return _found(job, seed, folder, lambda: job.modelled(share, seed, folder / "search"))


def _found(job: Compression, seed: int, folder: Path, search: Callable[[], nn.Module]) -> dict[str, float]:
    """A search, timed, and its network trained our way."""
    start = time.process_time()
    network = search()
    spent = time.process_time() - start
    return {**job.finished(network, seed, folder=folder, **OURS), "search_cpu_seconds": spent}


def _by_reconstruction(problem: Problem) -> Evaluator:
    return Reconstructed(problem, examples=4, device="cpu")


def _by_fine_tuning(problem: Problem) -> Evaluator:
    recipe = {"device": "cpu", "amp": "bfloat16"}
    return Finetune(problem, recipe=recipe, steps=8, lr=0.01, calibrate=4)


OURS = {"lr": 0.02, "distil": 0.5}
"""How networks that start near the original are trained: with it as the teacher, and gently."""


METHODS: dict[str, Callable[..., dict[str, float]]] = {
    "tp_l1_uniform": _tp("l1_uniform"),
    "tp_gn_uniform": _tp("gn_uniform"),
    "tp_l1_global": _tp("l1_global"),
    "tp_gn_global": _tp("gn_global"),
    "tp_gn_uniform_distilled": _tp("gn_uniform", **OURS),
    "uniform": _uniform(),
    "uniform_distilled": _uniform(**OURS),
    "uniform_fitted": _fitted(**OURS),
    "netadapt": _shrink("netadapt", _by_reconstruction),
    "netadapt_tuned": _shrink("netadapt_tuned", _by_fine_tuning),
    "layernas": _layernas,
    "ows": _search("ows", epochs=1, lr=0.02),
    "aows": _search("aows", epochs=2, lr=0.02),
}


def main() -> None:
    options = parser(__doc__, list(METHODS))
    options.add_argument("--shares", nargs="+", type=float, default=[0.5, 0.3])
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    job = Compression(args)
    for seed in args.seeds:
        for share in args.shares:
            for method in args.methods:
                folder = args.work / f"resnet{args.depth}" / f"{method}-{share:g}-{seed}"
                if not (folder / "result.json").exists():
                    with global_seed(derive(seed, method)):
                        found = METHODS[method](job, share, seed, folder)
                    files.atomically(folder / "result.json", lambda part, f=found: part.write_text(json.dumps(f)))
                found = json.loads((folder / "result.json").read_text())
                print(f"{share:.0%} seed {seed} {method:24s}", {k: round(v, 4) for k, v in found.items()}, flush=True)
    if args.out:
        summarise(args, job)


def summarise(args: argparse.Namespace, job: Compression) -> None:
    """All results in the work folder."""
    rows: dict[str, dict[str, Any]] = {}
    for method in METHODS:
        for share in args.shares:
            folders = sorted((args.work / f"resnet{args.depth}").glob(f"{method}-{share:g}-*/result.json"))
            found = [json.loads(f.read_text()) for f in folders]
            if found:
                rows.setdefault(f"{share:g}", {})[method] = averaged(found)
    original = evaluate(job.original, job.task.test(), job.task)["accuracy"]
    settings = {"depth": args.depth, "images": args.images, "epochs": args.epochs}
    args.out.write_text(json.dumps({"original": original, "settings": settings, "shares": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

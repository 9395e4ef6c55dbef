"""A trained CIFAR-10 ResNet at half of its measured latency on ONNX Runtime: sartor's whole job against Torch-Pruning.

sartor's rows are one `sartor.fit` per seed: its winner, the uniformly scaled network that the job trains in the same
way, and the search's own network, which is the winner where it is the better of the two. Torch-Pruning's pruning ratio
is bisected until the network takes just under half of the original's time, measured in turns with it; then it is
fine-tuned as in `compress_resnet.py`. Widths are quarters here: odd widths cost ONNX Runtime more than they are worth.
Resumable, like that script.

    python benchmarks/compress_latency.py --data DIR --weights FILE --work DIR --out benchmarks/results/latency.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from compress_resnet import OURS, Compression, averaged, parser
from torch import nn

import sartor
from sartor.core import files
from sartor.core.records import Estimate
from sartor.core.rng import derive, global_seed
from sartor.spaces.widths import Widths
from sartor.targets.onnxruntime import OnnxRuntime
from sartor.timing.meter import Effort, Subject, time_together

SHARE = 0.5


class Halving(Compression):
    """Networks that take half the time."""

    def fitted_by_sartor(self, seed: int, folder: Path) -> dict[str, dict[str, float]]:
        """Winner, uniformly scaled network and the search's own of the whole job."""
        done = sartor.fit(
            Widths(
                network=self.original,
                input_shape=(3, 32, 32),
                divisor=8,
                multipliers=(0.25, 0.5, 0.75, 1),
                blocks=True,
                reconstruct=256,
            ),
            self.task,
            target={"name": "onnxruntime", "threads": 1},
            budget={"latency_ms": f"{SHARE:.0%}"},
            strategy={"name": "layernas", "trials": self.args.trials},
            evaluator={"name": "reconstructed"},
            latency_model={"samples": self.args.samples},
            training={
                "epochs": self.args.epochs,
                "lr": OURS["lr"],
                "distil_weight": OURS["distil"],
                "warmup": 0.2,
                "amp": "bfloat16",
            },
            recipe="network",
            folder=folder,
            seed=seed,
        )
        (point,) = done.result.points
        assert point.uniform is not None
        whole = done.result.reference.latency_ms.value
        rows = {
            "sartor": point.winner,
            "uniform, fitted and distilled": point.uniform,
            "sartor's search alone": point.searched,
        }
        return {
            name: {
                "accuracy": entry.scores["accuracy"].value,
                "latency": entry.latency_ms.value / whole,
                "latency_low": entry.latency_ms.low / whole,
                "latency_high": entry.latency_ms.high / whole,
                "macs": entry.macs / self.macs,
            }
            for name, entry in rows.items()
        }

    def pruned(self, kind: str) -> nn.Module:
        """Torch-Pruning at the largest share of the MACs that is fast enough."""
        low, high = 0.1, 1.0
        network = self.torch_pruning(kind, low)
        for _ in range(6):
            middle = (low + high) / 2
            candidate = self.torch_pruning(kind, middle)
            if self.time(candidate, rounds=20, sessions=3).value <= SHARE:
                low, network = middle, candidate
            else:
                high = middle
        return network

    def time(self, network: nn.Module, *, rounds: int, sessions: int, processes: int = 1) -> Estimate:
        """The time of a network as a fraction of the original's."""
        target = OnnxRuntime(threads=1)
        example = self.task.example[:1]
        with tempfile.TemporaryDirectory() as folder:
            subjects = {
                name: Subject.prepared(target, module.eval(), example, Path(folder) / name)
                for name, module in (("original", self.original), ("network", network))
            }
            timed = time_together(subjects, Effort(rounds, sessions, processes), reference="original")
            return timed.ratio("network")

    def of(self, method: str, seed: int, folder: Path) -> dict[str, dict[str, float]]:
        if method == "sartor":
            return self.fitted_by_sartor(seed, folder / "run")
        network = self.pruned(method.removeprefix("tp_"))
        found = self.finished(network, seed, folder=folder)
        time = self.time(network, rounds=40, sessions=5, processes=3)
        return {method: {**found, "latency": time.value, "latency_low": time.low, "latency_high": time.high}}


def main() -> None:
    options = parser(__doc__, ["sartor", "tp_gn_uniform", "tp_l1_uniform"])
    options.add_argument("--trials", type=int, default=120, help="networks that a search reconstructs and judges")
    options.add_argument("--samples", default="", help="latency samples of an earlier run here, instead of measuring")
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    job = Halving(args)
    for seed in args.seeds:
        for method in args.methods:
            folder = args.work / f"resnet{args.depth}" / f"{method}-latency-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "result.json").exists():
                with global_seed(derive(seed, method)):
                    found = job.of(method, seed, folder)
                files.atomically(folder / "result.json", lambda part, f=found: part.write_text(json.dumps(f)))
            for name, row in json.loads((folder / "result.json").read_text()).items():
                print(f"seed {seed} {name:32s}", {k: round(v, 4) for k, v in row.items()}, flush=True)
    if args.out:
        summarise(args)


def summarise(args: argparse.Namespace) -> None:
    """All results in the work folder."""
    rows: dict[str, list[dict[str, float]]] = {}
    for file in sorted((args.work / f"resnet{args.depth}").glob("*-latency-*/result.json")):
        for name, row in json.loads(file.read_text()).items():
            rows.setdefault(name, []).append(row)
    summary = {name: averaged(found) for name, found in rows.items()}
    names = ("depth", "images", "epochs", "trials")
    settings = {**{name: getattr(args, name) for name in names}, "share": SHARE}
    args.out.write_text(json.dumps({"settings": settings, "rows": summary}, indent=1) + "\n")


if __name__ == "__main__":
    main()

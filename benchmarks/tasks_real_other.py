"""Reference networks for the tasks audio, multisource and regression, trained from scratch on real data on one core.

They are what `sartor fit` starts from in docs/tasks.md. Each sub-command is one task; it goes on where it was stopped,
writes `WEIGHTS/<task>.safetensors`, and puts what the network reaches on the test split into a JSON file. `imitate`
trains nothing: it needs a network that is trained already, and says how well that classifies, which the task itself
never sees.

    OMP_NUM_THREADS=1 python benchmarks/tasks_real_other.py audio --data DATA --weights DIR \\
        --out benchmarks/results/tasks_other.json

DATA holds audio/fsdd.npz, multisource/water/water64.npz, nats_size_cifar10.csv.gz, cifar10/test.parquet and
weights/resnet20_cifar10.safetensors (see docs/tasks.md for what is where).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sartor.core import files, plugins
from sartor.core.contracts import Task
from sartor.core.rng import global_seed
from sartor.networks import macs_params
from sartor.tasks.arrays import arrays
from sartor.training import Recipe, check_fits, fit, score

EXAMPLES = Path(__file__).parents[1] / "examples"

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Reference:
    """A network to train: its name in `examples/networks_other.py`, the task's settings, the recipe."""

    network: str
    settings: Callable[[Path], Mapping[str, Any]]
    recipe: Recipe


def _recipe(epochs: int, lr: float) -> Recipe:
    return Recipe(epochs=epochs, optimizer="adamw", lr=lr, weight_decay=1e-2, clip=1.0, device="cpu")


REFERENCES = {
    "audio": Reference("spoken_digits", lambda data: {"data": data / "audio/fsdd.npz"}, _recipe(15, 3e-3)),
    "multisource": Reference(
        "water",
        lambda data: {
            "data": data / "multisource/water/water64.npz",
            "inputs": ["optical", "dem"],
            "augment": "flips",
            "batch": 16,
        },
        _recipe(60, 3e-3),
    ),
    "regression": Reference(
        "widths_accuracy",
        lambda data: {
            "data": data / "nats_size_cifar10.csv.gz",
            "inputs": ["c1", "c2", "c3", "c4", "c5"],
            "target": "cifar10_test_90",
            "unit": "points",
            "batch": 256,
        },
        _recipe(30, 1e-2),
    ),
}


def build(name: str) -> nn.Module:
    """A network of `examples/networks_other.py`."""
    spec = importlib.util.spec_from_file_location("networks_other", EXAMPLES / "networks_other.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)()


def trained(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train, or go on, and score on the test split."""
    reference = REFERENCES[name]
    task: Task = plugins.load("tasks", name)(**reference.settings(args.data))
    with global_seed(args.seed):
        network = build(reference.network)
    check_fits(task, network)
    began = time.perf_counter()

    def show(epoch: int, total: int, metrics: Mapping[str, float]) -> None:
        spent = time.perf_counter() - began
        print(f"{name} {epoch}/{total} {spent:.0f} s", {k: round(v, 4) for k, v in metrics.items()}, flush=True)

    place = args.weights / f"{name}.checkpoint"
    history = fit(network, task, reference.recipe, seed=args.seed, checkpoint=place, on_epoch=show)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, args.weights / f"{name}.safetensors")
    counted = macs_params(network, task.example) if isinstance(task.example, Tensor) else (None, _parameters(network))
    return {
        "network": reference.network,
        "epochs": len(history.epochs),
        "macs": counted[0],
        "params": counted[1],
        "data": dict(task.describe or {}) | {"source": Path(str((task.describe or {})["source"])).name},
        "test": scores(network, task),
    }


def scores(network: nn.Module, task: Task) -> dict[str, Any]:
    """Each metric on the test split, with its interval."""
    found = score(network, task.test(), task)
    return {name: {"value": s.value, "low": s.low, "high": s.high} for name, s in found.items()}


def _parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


class Logits(nn.Module):
    """A backbone's logits alone."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(x)["logits"]


def imitated(args: argparse.Namespace) -> dict[str, Any]:
    """The accuracy of the backbone whose outputs are imitated."""
    source = args.data / "weights/resnet20_cifar10.safetensors"
    network = build("cifar_backbone")
    network.load_state_dict(load_file(source))
    shutil.copyfile(source, args.weights / "imitate.safetensors")
    data = args.data / "cifar10"
    task = arrays(train=data / "test.parquet", test=data / "test.parquet", mean=MEAN, std=STD)
    return {
        "network": "cifar_backbone",
        "params": _parameters(network),
        "test": scores(Logits(network), task),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=[*REFERENCES, "imitate"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="folder for what is trained, and for checkpoints")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.weights.mkdir(parents=True, exist_ok=True)
    found = imitated(args) if args.task == "imitate" else trained(args.task, args)
    rows = json.loads(args.out.read_text()) if args.out.exists() else {}
    rows[args.task] = found
    args.out.parent.mkdir(parents=True, exist_ok=True)
    files.atomically(args.out, lambda part: part.write_text(json.dumps(rows, indent=1) + "\n"))
    print(json.dumps(found["test"], indent=1))


if __name__ == "__main__":
    main()

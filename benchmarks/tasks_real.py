"""Reference networks for the tasks, trained from scratch on real data on one core: what `sartor fit` starts from.

Each sub-command is one task; it goes on where it was stopped, writes `WEIGHTS/<task>.safetensors`, and puts what the
network reaches on the test split into a JSON file. `bicubic` trains nothing: it checks that bicubic enlargement has the
published PSNR, through the whole of the task super_resolution.

    OMP_NUM_THREADS=1 python benchmarks/tasks_real.py segmentation --data DATA --weights DIR \\
        --out benchmarks/results/tasks.json

DATA holds sr/{bsds500_train,set5_hr,set14_hr}, segmentation/camvid, depth/nyu_v2 (see docs/tasks.md for what is where).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sartor.core import files, plugins
from sartor.core.contracts import Task
from sartor.core.metrics import Score
from sartor.core.rng import global_seed
from sartor.data.fidelity import eight_bit
from sartor.data.resize import imresize
from sartor.training import Recipe, check_fits, fit, score

EXAMPLES = Path(__file__).parents[1] / "examples"

PUBLISHED = {
    "set5_hr": {2: 33.66, 3: 30.39, 4: 28.42},
    "set14_hr": {2: 30.24, 3: 27.55, 4: 26.00},
}
"""PSNR in dB of bicubic enlargement, as the papers of the field give it (Timofte et al. 2014, table 2, and others)."""


@dataclass(frozen=True)
class Reference:
    """A network to train: its name in `examples/networks.py`, the task's settings, the recipe."""

    network: str
    settings: Callable[[Path], Mapping[str, Any]]
    recipe: Recipe
    also: Mapping[str, Callable[[Path], Mapping[str, Any]]] = field(default_factory=dict)
    """Other test splits: name -> settings that differ."""


REFERENCES = {
    "super_resolution": Reference(
        "sr_x2",
        lambda data: {"train": data / "sr/bsds500_train", "test": data / "sr/set5_hr"},
        Recipe(epochs=60, optimizer="adamw", lr=1e-3, weight_decay=0.0, clip=1.0, device="cpu"),
        {"set14": lambda data: {"test": data / "sr/set14_hr"}},
    ),
    "segmentation": Reference(
        "camvid",
        lambda data: {"root": data / "segmentation/camvid", "classes": 11, "ignore": 11},
        Recipe(epochs=30, optimizer="adamw", lr=3e-3, weight_decay=1e-2, clip=1.0, device="cpu"),
    ),
    "depth": Reference(
        "nyu_depth",
        lambda data: {"root": data / "depth/nyu_v2"},
        Recipe(epochs=20, optimizer="adamw", lr=2e-3, weight_decay=1e-2, clip=1.0, device="cpu"),
    ),
}


class Bicubic(nn.Module):
    """Enlarges pictures in [0, 1], `(batch, C, H, W)`."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return eight_bit(255 * imresize((x * 255).round().double() / 255, self.scale)).float() / 255


def main() -> None:
    args = arguments()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    found = bicubic(args.data) if args.task == "bicubic" else trained(args.task, args.data, args.weights, args.epochs)
    print(json.dumps(found, indent=1))
    if args.out:
        before = json.loads(args.out.read_text()) if args.out.exists() else {}
        text = json.dumps({**before, args.task: found}, indent=1, sort_keys=True) + "\n"
        files.atomically(args.out, lambda part: part.write_text(text))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["bicubic", *REFERENCES])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data")
    parser.add_argument("--weights", type=Path, default=Path("runs/tasks"), help="folder for weights and checkpoints")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's, for a trial")
    parser.add_argument("--out", type=Path, help="JSON file to add the figures to")
    return parser.parse_args()


def bicubic(data: Path) -> dict[str, Any]:
    """PSNR and SSIM of bicubic enlargement on the luminance, beside the published PSNR."""
    found: dict[str, Any] = {}
    for pictures, published in PUBLISHED.items():
        for scale, psnr in published.items():
            folder = data / "sr" / pictures
            settings = {"train": data / "sr/bsds500_train", "test": folder, "scale": scale, "channels": 1}
            task = made("super_resolution", settings)
            ours = {k: v.value for k, v in score(Bicubic(scale), task.test(), task).items()}
            found[f"{pictures} x{scale}"] = {"published_psnr": psnr} | ours | {"off": ours["psnr"] - psnr}
    return found


def trained(name: str, data: Path, weights: Path, epochs: int | None) -> dict[str, Any]:
    """Train the reference of the task `name`, and test it."""
    reference = REFERENCES[name]
    recipe = reference.recipe if epochs is None else Recipe(**{**vars(reference.recipe), "epochs": epochs})
    task = made(name, reference.settings(data))
    with global_seed(0):
        module = networks()[reference.network]()
    check_fits(task, module)
    weights.mkdir(parents=True, exist_ok=True)
    spent = weights / f"{name}.seconds"
    clock = [time.perf_counter()]

    def on_epoch(done: int, total: int, metrics: Mapping[str, float]) -> None:
        now = time.perf_counter()
        before = float(spent.read_text()) if spent.exists() else 0.0
        files.atomically(spent, lambda part: part.write_text(str(before + now - clock[0])))
        clock[0] = now
        print(f"{name} {done}/{total} {json.dumps(dict(metrics))}", flush=True)

    fit(module, task, recipe, seed=0, checkpoint=weights / f"{name}.pt", on_epoch=on_epoch)
    save_file(module.state_dict(), weights / f"{name}.safetensors")
    found = {
        "network": reference.network,
        "parameters": sum(p.numel() for p in module.parameters()),
        "epochs": recipe.epochs,
        "seconds": round(float(spent.read_text())),
        "data": {k: v for k, v in (task.describe or {}).items() if k != "source"},
        "valid": shown(score(module, task.valid(), task)),
        "test": shown(score(module, task.test(), task)),
    }
    for other, settings in reference.also.items():
        task = made(name, {**reference.settings(data), **settings(data)})
        found[other] = shown(score(module, task.test(), task))
    return found


def made(name: str, settings: Mapping[str, Any]) -> Task:
    return plugins.load("tasks", name)(**settings)


def networks() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("networks", EXAMPLES / "networks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)


def shown(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {k: {"value": s.value, "low": s.low, "high": s.high, "examples": s.examples} for k, s in scores.items()}


if __name__ == "__main__":
    main()

"""How well the statistics of a slimmable supernet rank networks that were never trained alone.

A supernet is trained on random paths (as OWS does); then random networks are cut out, recalibrated and evaluated on the
validation split. Compared are, by Spearman's rank correlation with that loss: the mean of AOWS and the regression of
sartor, with one path per image (as in AOWS) and with a few paths per batch; and, as a yardstick, the negative sum of
the logarithms of all widths, which no training went into.

    python benchmarks/width_statistics.py --out benchmarks/results/width_statistics.json
"""

from __future__ import annotations

import argparse
import json
import math
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr

from sartor.core.contracts import Problem, Space
from sartor.core.files import atomically
from sartor.core.records import Objective
from sartor.core.rng import numpy_rng, torch_rng
from sartor.spaces.mobilenet_v1 import MobilenetV1
from sartor.spaces.tiny import Tiny
from sartor.supernet.calibrate import recalibrate
from sartor.supernet.slimmable import Slimmable, uniform
from sartor.tasks.digits import digits

SPACES: dict[str, tuple[Space, int, int]] = {
    "tiny, 6 layers": (Tiny(depth=6, widths=tuple(range(4, 33, 4))), 8, 20),
    "mobilenet_v1, 14 layers": (
        MobilenetV1(classes=10, size=16, stem="small", width=0.25, divisor=4, in_channels=1),
        16,
        16,
    ),
}
"""Space, image size, epochs."""


class Quiet:
    """A lab that nothing comes of."""

    def log(self, **scalars: float) -> None:
        pass

    def progress(self, *_: Any) -> None:
        pass


def measure(name: str, paths: int, seed: int, networks: int) -> dict[str, Any]:
    space, size, epochs = SPACES[name]
    task = digits(size=size)
    problem = Problem(space, (Objective("accuracy", "max"),), task=task)
    training = Slimmable(
        problem, seed, by="a benchmark", epochs=epochs, lr=0.4, schedule="cosine", half_life=0.2, paths=paths
    )
    probabilities = uniform(space.choices)
    while not training.finished:
        training.epoch(Quiet(), lambda _: probabilities)  # type: ignore[arg-type]
    rng = numpy_rng(seed, "held out")
    held = [space.moves.draw(rng) for _ in range(networks)]
    calibration = list(islice(task.train(torch_rng(0)), 4))
    losses = []
    for arch in held:
        module = training.supernet.extract(arch)
        recalibrate(module, calibration)
        module.eval()
        with torch.no_grad():
            parts = [task.loss(module(x), y) for x, y in task.valid()]
        losses.append(float(torch.cat(parts).mean()))
    row: dict[str, Any] = {"space": name, "paths": paths, "seed": seed, "networks": networks}
    row["mean_loss"] = sum(losses) / len(losses)
    for estimator in ("mean", "least_squares"):
        predicted = training.statistics.tables(estimator)(held)  # type: ignore[arg-type]
        row[estimator] = float(spearmanr(predicted.numpy(), losses).statistic)
    narrow = [-sum(math.log(float(c.options[a])) for c, a in zip(space.choices, arch, strict=True)) for arch in held]
    row["width_alone"] = float(spearmanr(narrow, losses).statistic)
    row["prior_in_images"] = training.statistics.weights
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file; what is in it is not measured again")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--networks", type=int, default=120)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows: list[dict[str, Any]] = json.loads(args.out.read_text()) if args.out.exists() else []
    known = {(r["space"], r["paths"], r["seed"]) for r in rows}
    for seed in range(args.seeds):
        for name in SPACES:
            for paths in (0, 4):
                if (name, paths, seed) in known:
                    continue
                rows.append(measure(name, paths, seed, args.networks))
                print(json.dumps(rows[-1]), flush=True)
                atomically(args.out, lambda part: part.write_text(json.dumps(rows, indent=1) + "\n"))


if __name__ == "__main__":
    main()

"""The main job from Python: your space, your loaders, your budget, a trained nn.Module back.

Run: python examples/fit_from_python.py FOLDER     (about a minute; the same again goes on or is finished)
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

import sartor


def stripes(count: int, seed: int) -> TensorDataset:
    """Two classes of noisy 16 x 16 images: horizontal or vertical stripes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=generator)
    wave = torch.sin(torch.arange(16) * 1.5).expand(16, 16)
    clean = torch.where(labels[:, None, None] == 1, wave, wave.T)
    return TensorDataset((clean + torch.randn(count, 16, 16, generator=generator))[:, None], labels)


def main(folder: Path) -> sartor.Fit:
    """Half the multiply-adds, and at most 60 % of the parameters."""
    train, valid, test = (DataLoader(stripes(n, seed), batch_size=64) for n, seed in ((512, 0), (256, 1), (256, 2)))
    fit = sartor.fit(
        {"name": "tiny", "widths": [4, 8, 16, 24]},
        (train, valid, test),
        budget={"macs": "50%", "params": "60%"},
        target={"name": "torch_cpu"},
        strategy={"name": "aows", "epochs": 4},
        training={"epochs": 3, "lr": 0.1},
        folder=folder,
    )
    point = fit.result.points[0]
    print(point.sentence)
    print("widths:", dict(point.winner.options))
    print("test accuracy:", fit.metrics["accuracy"])
    print(fit.network)
    return fit


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/stripes"))

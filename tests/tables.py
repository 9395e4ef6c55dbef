"""A small table of results for the tests of `sartor bench`."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from sartor.spaces.tiny import Tiny

SETTINGS = {"name": "tiny", "widths": [4, 8, 12, 16], "size": 8, "classes": 10}


def written(folder: Path) -> Path:
    """A table of the 64 networks of `SETTINGS`: wider is better, the second layer most of all, with some exceptions."""
    space = Tiny(**{k: v for k, v in SETTINGS.items() if k != "name"})
    lines = ["arch_str,toy_valid_12,toy_test_90"]
    for i, arch in enumerate(product(*(range(len(c.options)) for c in space.choices))):
        name = ":".join(str(c.options[a]) for c, a in zip(space.choices, arch, strict=True))
        value = 60 + 3 * arch[0] + 5 * arch[1] + 2 * arch[2] + (7 * i % 11) / 10
        lines.append(f"{name},{value - 10 + (5 * i % 7) / 2:.3f},{value:.3f}")
    path = folder / "toy.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def values(path: Path) -> dict[str, float]:
    """Network -> reported accuracy."""
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    return {name: float(test) for name, _, test in rows}


def timed(folder: Path) -> Path:
    """The same with the seconds of the trainings, and a latency that is no sum over layers."""
    head, *rows = written(folder).read_text().splitlines()
    lines = [f"{head},toy_seconds_12,toy_seconds_90,latency_ms_toy"]
    for i, row in enumerate(rows):
        lines.append(f"{row},{1 + i % 3},{9 + i % 3},{0.01 * (1 + 13 * i % 64):.2f}")
    path = folder / "timed.csv"
    path.write_text("\n".join(lines) + "\n")
    return path

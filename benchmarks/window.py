"""What a window costs: regularized evolution with 1, 2, 4, 8 networks under way, on published results.

Quality: the mean of the best accuracy after so many evaluations over many runs, by `sartor bench` on a table of all
cells. Utilisation: the share of the time in which as many workers as the window train, where a training takes a time
drawn from a log-normal distribution. Nothing is trained, so this needs no idle machine.

    python benchmarks/window.py cells.csv.gz --out benchmarks/results/window.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from sartor.core.rng import numpy_rng
from sartor.jobs.bench import Bench, bench
from sartor.run.folder import write_json

WINDOWS = (1, 2, 4, 8)
SPREAD = 0.35
"""Of the logarithm of the time of a training, where nobody knows it: the slow third takes twice as long as the fast."""


def utilisation(window: int, seconds: np.ndarray) -> float:
    """Share of the time of `window` workers in which they train, where trial k begins when trial k - window is told."""
    told, busy_until = [0.0] * len(seconds), [0.0] * window
    for k, length in enumerate(seconds):
        worker = int(np.argmin(busy_until))
        begin = max(busy_until[worker], told[k - window] if k >= window else 0.0)
        busy_until[worker] = begin + length
        told[k] = max(told[k - 1] if k else 0.0, busy_until[worker])  # in the order of proposals
    return float(seconds.sum() / (window * told[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", help="results of all cells")
    parser.add_argument("--space", default="nats_topology")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("window.json"))
    given = parser.parse_args()
    strategies: dict[str, dict[str, Any]] = {
        f"window_{w}": {"name": "regularized_evolution", "window": w} for w in WINDOWS
    }
    found = bench(Bench(given.space, given.table, strategies, {}, given.evaluations, given.runs), workers=2)
    seconds = np.exp(SPREAD * numpy_rng(0, "window").standard_normal(5000))
    rows = [
        {
            "window": w,
            "utilisation": utilisation(w, seconds),
            **{k: found["strategies"][f"window_{w}"][k] for k in ("mean", "std", "median", "at")},
        }
        for w in WINDOWS
    ]
    facts = {k: found[k] for k in ("space", "table", "evaluations", "runs", "optimum", "tests")}
    write_json(given.out, {**facts, "spread": SPREAD, "rows": rows})
    for row in rows:
        print(
            f"window {row['window']}: {row['utilisation']:.1%} busy, mean {row['mean']:.3f} after {given.evaluations}"
        )


if __name__ == "__main__":
    main()

"""Evolution, REINFORCE and random search on NATS-Bench's topologies, against the averages its authors published.

    python benchmarks/published_averages.py --table nats_topology_cifar10.csv.gz

The signal is the validation accuracy after 12 epochs, settings are the strategies' defaults, which are the benchmark's;
what is compared is the test accuracy after 200 epochs, mean over 500 runs. The authors stop a run after 20,000 seconds
of training; a table without times is searched for a number of evaluations instead.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from sartor.jobs.bench import Bench, bench

PUBLISHED = {"random_search": 93.86, "regularized_evolution": 94.02, "reinforce": 93.90}
"""Dong et al., NATS-Bench, TPAMI 2021, CIFAR-10."""
WITHIN = 0.1


def compared(table: Path, runs: int, evaluations: int, workers: int) -> dict[str, Any]:
    """Our averages after each of several numbers of evaluations, and how far they are from those published."""
    begin = time.perf_counter()
    found = bench(
        Bench(
            space={"name": "nats_topology", "merge": "none"},  # the authors draw among all names
            table=str(table),
            strategies={name: {} for name in PUBLISHED},
            evaluations=evaluations,
            runs=runs,
            signal="cifar10_valid_12",
        ),
        workers=workers,
    )
    rows = {}
    for name, published in PUBLISHED.items():
        final = found["curves"][name][:, -1]
        mean, error = float(final.mean()), float(final.std(ddof=1) / np.sqrt(runs))
        rows[name] = {
            "published": published,
            "mean": mean,
            "standard_error": error,
            "std": float(final.std(ddof=1)),
            "difference": mean - published,
            "within": abs(mean - published) <= WITHIN,
            "at": found["strategies"][name]["at"],
        }
    return {
        "table": table.name,
        "signal": found["signal"],
        "reported": found["reported"],
        "runs": runs,
        "evaluations": evaluations,
        "strategies": rows,
        "seconds": time.perf_counter() - begin,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--evaluations", type=int, default=150)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/published_averages.json"))
    arguments = parser.parse_args()
    found = compared(arguments.table, arguments.runs, arguments.evaluations, arguments.workers)
    arguments.output.write_text(json.dumps(found, indent=1) + "\n")
    for name, row in found["strategies"].items():
        print(
            f"{name}: {row['mean']:.3f} +- {row['standard_error']:.3f}, published {row['published']:.2f}, "
            f"difference {row['difference']:+.3f}{'' if row['within'] else ', too far'}"
        )


if __name__ == "__main__":
    main()

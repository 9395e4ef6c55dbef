"""Searches over operations on CIFAR-10 inside a measured latency, against random search with the same seconds.

`sartor compare` on the recipe beside this file: the reference is measured and the latency model is fitted once, for all
searches and seeds; every search gets the same processor seconds; every answer is trained by the same recipe, tested,
and timed in the same rounds on ONNX Runtime with one thread. Killed, the same command goes on; more seeds do, too.

    OMP_NUM_THREADS=1 python benchmarks/operations_cifar10.py --data DIR --work DIR \
        --out benchmarks/results/operations_cifar10.json
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sartor.core import files
from sartor.jobs.compare.run import BASELINES, compare_recipe
from sartor.report.compare import notes, overview, sentences, write
from sartor.run.comparison import Comparison
from sartor.run.progress import console, display
from sartor.run.schema import encode

RECIPE = Path(__file__).with_suffix(".toml")
SEARCHES = ("proxyless", "tunas", "one_shot")
"""Without darts, which runs all seven operations of a block twice per step: it would not end its second epoch."""
SETTINGS = (
    "random_search.batch=1",  # a batch is finished, whatever the clock says
    "local_search.move=first",
    "proxyless.lr=0.1",
    "proxyless.arch_lr=0.02",
    "proxyless.every=2",
    "tunas.arch_lr=0.01",
    "tunas.arch_schedule=cosine",
    "one_shot.paths=uniform",
    "one_shot.samples=40",
    "one_shot.batch=10",
    "darts.arch_lr=0.01",  # where --strategies asks for it
)
"""What suits trainings of a thousand steps; the defaults are for a hundred times as many."""


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    data = [f"task.{part}={args.data.resolve() / part}.parquet" for part in ("train", "test")]
    found = compare_recipe(
        [str(RECIPE)],
        args.work,
        strategies=",".join(args.strategies),
        given={"seconds": args.seconds},
        seeds=args.seeds,
        assignments=[*data, *(s for s in SETTINGS if s.partition(".")[0] in (*args.strategies, *BASELINES)), *args.set],
        display=display(quiet=False),
        command="benchmarks/operations_cifar10.py",
    )
    show(found, args.work, args.out)


def show(found: Comparison, work: Path, out: Path | None) -> None:
    """Print a comparison, and write its page into `work` and its figures to `out`."""
    write(found, work)
    console().print(overview(found))
    print(*sentences(found), *notes(found), sep="\n")
    if out:
        text = json.dumps(figures(found), indent=1) + "\n"
        files.atomically(out, lambda part: part.write_text(text))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--work", type=Path, required=True, help="folder of the comparison; grows")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=180, help="processor seconds of every search")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--strategies", nargs="+", default=list(SEARCHES), help="besides the baselines")
    parser.add_argument("--set", nargs="*", default=[], help="further settings, as sartor compare takes them")
    return parser.parse_args()


def figures(found: Comparison) -> dict[str, Any]:
    """The comparison without its trials, which are in the work folder."""
    rows = {
        name: replace(row, answers=tuple(replace(answer, trials=()) for answer in row.answers))
        for name, row in found.contestants.items()
    }
    dropped = ("environment", "problem")
    return {k: v for k, v in encode(replace(found, contestants=rows)).items() if k not in dropped}


if __name__ == "__main__":
    main()

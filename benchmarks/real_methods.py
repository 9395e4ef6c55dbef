"""One real search each by mcts, block_qnn and nasnet on CIFAR-10, against random search with equal epochs.

`sartor compare` on the recipe of each method beside this file: a small space of its own, trials of three epochs on
2,000 images, and the best network of every search trained longer and tested. Workers are the recipe's: a section
`[workers]` in it, or `--set workers.name=...`. Killed, the same command goes on; more seeds do, too.

    OMP_NUM_THREADS=1 python benchmarks/real_methods.py --method block_qnn --data DIR --work DIR --seeds 5 \
        --out benchmarks/results/real_block_qnn.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from operations_cifar10 import show

from sartor.jobs.compare.run import compare_recipe
from sartor.run.progress import display

METHODS = ("block_qnn", "mcts", "nasnet")
"""The cheapest first."""


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    data = [f"task.{part}={args.data.resolve() / part}.parquet" for part in ("train", "test")]
    found = compare_recipe(
        [str(Path(__file__).with_name(f"real_{args.method}.toml"))],
        args.work,
        strategies=f"random_search,{args.method}",
        given={"epochs": args.epochs},
        seeds=args.seeds,
        assignments=[*data, *args.set],
        display=display(quiet=False),
        command="benchmarks/real_methods.py",
    )
    show(found, args.work, args.out)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--work", type=Path, required=True, help="folder of the comparison; grows")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--epochs", type=float, default=120, help="of every search: 40 trials")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], help="further settings, as sartor compare takes them")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""How wrong a table of operators is about whole networks, and what fitting to a few networks makes of it.

    OMP_NUM_THREADS=1 python benchmarks/lookup_error.py --work lookup

Every operator of `mbconv`, and random networks of it, are timed in the same rounds on ONNX Runtime, one thread. Then
the networks are split at random, some to fit with and the rest to judge: the table alone, the table fitted to networks,
and a model of the networks that knows no table. Killed, it goes on; figures for docs/lookup.md. No data is needed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from sartor.core.records import Arch
from sartor.core.rng import numpy_rng
from sartor.costs.fitted import Fitted
from sartor.jobs.measure.operators import Wish, measure_operators
from sartor.latency.agreement import Agreement
from sartor.latency.samples import Sample
from sartor.run.progress import display
from sartor.spaces.mbconv import Mbconv
from sartor.targets.onnxruntime import OnnxRuntime
from sartor.timing.machine import machine

RESULT = Path(__file__).parent / "results" / "lookup_error.json"


def judged(space: Mbconv, rows: list[dict[str, Any]], train: int, table: str, seed: int) -> dict[str, Any]:
    """Errors on the networks that a random split holds out."""
    order = numpy_rng(seed, "lookup_error", train).permutation(len(rows))
    samples = []
    for rank, i in enumerate(order):
        ms, arch = rows[i]["measured"], tuple(rows[i]["arch"])
        samples.append(Sample(arch, ms, ms, ms, 0.0, "train" if rank < train else "heldout"))
    fitted = {"with table": Fitted.of(space, samples, kind="combined", table=table)}
    fitted["without"] = Fitted.of(space, samples, kind="combined")
    fitted["macs"] = Fitted.of(space, samples, kind="macs")
    held: list[Arch] = [s.arch for s in fitted["macs"].heldout]
    mean = np.mean([s.latency_ms for s in samples if s.split == "train"])
    truth = np.array([s.latency_ms for s in fitted["macs"].heldout])
    lookup = fitted["with table"].lookup
    assert lookup is not None
    return {
        "heldout": len(held),
        "lookup": lookup.nrmse,
        "mean": Agreement.of(np.full(len(held), mean), truth).nrmse,
        **{name: model.nrmse for name, model in fitted.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the table and the visits; grows")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--networks", type=int, default=36)
    parser.add_argument("--train", type=int, nargs="+", default=[6, 12, 24])
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    space, target = Mbconv(preset=args.preset, size=args.size), OnnxRuntime(threads=1)
    args.work.mkdir(parents=True, exist_ok=True)
    table, screen = args.work / f"{args.preset}.json", display()
    wish = Wish(sessions=args.sessions, rounds=args.rounds, check=args.networks)
    found = measure_operators(space, target, table, wish, show=screen.bar)
    screen.close()
    check = found.pop("check")
    rows = check.pop("rows")
    print(f"{found['operators']} operators, {len(rows)} networks; the table alone: {Agreement(**check)}")
    result = []
    for train in args.train:
        splits = [judged(space, rows, train, str(table), seed) for seed in range(args.splits)]
        names = ("lookup", "with table", "without", "macs", "mean")
        row = {name: median(s[name] for s in splits) for name in names}
        result.append({"train": train, "heldout": splits[0]["heldout"], **row, "splits": splits})
        print(
            f"{train:3d} to fit, {splits[0]['heldout']} held out: " + ", ".join(f"{n} {v:.1%}" for n, v in row.items())
        )
    facts = {"preset": args.preset, "size": args.size, **{k: v for k, v in found.items() if k != "table"}}
    data = {**facts, "machine": machine(), "check": check, "fits": result, "rows": rows}
    args.output.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""LayerNAS on real trainings: widths of a slim ResNet on CIFAR-10 inside half of its measured latency, with a kill.

`sartor fit` is started, killed (SIGKILL) as soon as the search has made some trials, and started again. The script
checks that nothing that was finished was done twice, and reads the verdict from the run's folder.

    python benchmarks/layernas_cifar10.py --data DIR --work DIR --out benchmarks/results/layernas_cifar10.json
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sartor.core import files
from sartor.run.journal import FileJournal, read_trials
from sartor.run.result import read_result

CONFIG = """
title = "Widths of a ResNet on CIFAR-10, at half the latency, by LayerNAS"
seed = {seed}

[space]
name = "resnet_widths"
blocks = [1, 1, 1]

[task]
name = "arrays"
train = "{data}/train.parquet"
test = "{data}/test.parquet"
subset = {images}

[target]
name = "onnxruntime"

[budget]
latency_ms = "50%"

[strategy]
name = "layernas"
trials = {trials}

[evaluator]
recipe = {{ epochs = {short}, lr = 0.2 }}

[latency_model]
networks = 60
heldout = 20

[training]
epochs = {epochs}
lr = 0.2
"""


def main() -> None:
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    config, folder = args.work / "layernas.toml", args.work / "run"
    config.write_text(CONFIG.format_map({**vars(args), "data": args.data.resolve()}))
    command = [sys.executable, "-m", "sartor", "fit", str(config), str(folder), "--quiet"]
    journal = folder / "search" / "journal.jsonl"
    killed = args.work / "killed.json"
    if not killed.exists():
        before = killed_after(command, journal, args.kill)
        files.atomically(killed, lambda part: part.write_text(json.dumps(before)))
    subprocess.run(command, check=True)
    found = figures(folder, journal, json.loads(killed.read_text()))
    print(json.dumps(found, indent=1))
    if args.out:
        args.out.write_text(json.dumps({"settings": settings(args), **found}, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--images", type=int, default=5000, help="training images, validation included")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--short", type=int, default=2, help="epochs of a trial")
    parser.add_argument("--epochs", type=int, default=12, help="of the final training")
    parser.add_argument("--kill", type=int, default=12, help="trials before the kill")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def settings(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in ("images", "trials", "short", "epochs", "kill", "seed")}


def killed_after(command: list[str], journal: Path, trials: int) -> list[list[Any]]:
    """Run until so many trials are journaled, and a moment into the next one; the trials then."""
    process = subprocess.Popen(command)
    while process.poll() is None and not (journal.exists() and len(read_trials(FileJournal(journal))) >= trials):
        time.sleep(0.5)
    time.sleep(1.5)
    if process.poll() is not None:
        raise SystemExit(f"the run ended (code {process.returncode}) before it could be killed")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return described(journal)


def described(journal: Path) -> list[list[Any]]:
    return [[list(t.arch), t.metrics] for t in read_trials(FileJournal(journal))]


def figures(folder: Path, journal: Path, before: list[list[Any]]) -> dict[str, Any]:
    """What the run found, and whether the kill cost it anything."""
    result = read_result(folder)
    (point,) = result.points
    roles = {"reference": result.reference, "winner": point.winner, "uniform": point.uniform}
    if point.winner is not point.searched:
        roles["searched"] = point.searched
    trials = described(journal)
    starts = [r["index"] for r in FileJournal(journal).read() if r["kind"] == "start"]
    whole = result.reference.latency_ms.value
    return {
        "trials": len(trials),
        "trials_before_the_kill": len(before),
        "kept": trials[: len(before)] == before,
        "trials_started_twice": len(starts) - len(set(starts)),
        "best_of_the_search": max(m["accuracy"] for _, m in trials if "accuracy" in m),
        "verdict": result.verdict,
        **{
            role: {
                "accuracy": entry.scores["accuracy"].value,
                "latency": entry.latency_ms.value / whole,
                "latency_low": entry.latency_ms.low / whole,
                "latency_high": entry.latency_ms.high / whole,
                "macs": entry.macs,
            }
            for role, entry in roles.items()
            if entry is not None
        },
    }


if __name__ == "__main__":
    main()

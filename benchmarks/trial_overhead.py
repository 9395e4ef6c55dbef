"""What a trial costs beside its evaluation: sartor's run folder and Optuna's two storages, one objective, one run.

Every measurement is a process of its own, in rounds that interleave all of them, so that what else the machine does
falls on all alike. The objective is ten whole numbers and a sum of squares: nothing. Optuna draws at random (its
cheapest sampler); it keeps trials, not the sampler's state. sartor keeps both. The folder is on the disk that is named:
a file system in memory has no `fsync` to wait for, and says little.

    python benchmarks/trial_overhead.py --folder /a/disk --out benchmarks/results/trial_overhead.json

Goes on where it was stopped: what the file has is not measured again.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

import optuna
import torch
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from torch import Tensor, nn

from sartor.core import plugins
from sartor.core.contracts import CostModel, Evaluator, Problem, Space
from sartor.core.errors import CapabilityError
from sartor.core.records import Arch, Choice, Objective, Proposal
from sartor.run.folder import write_json
from sartor.run.runner import run

CHOICES, OPTIONS = 10, 8
TRIALS = {"optuna": (200, 1000), "sartor": (200, 1000, 5000, 20000)}
"""Optuna syncs every parameter of every trial, so that many trials take their time."""
ROUNDS = 3


class Numbers(Space):
    """Ten whole numbers."""

    choices = tuple(Choice(f"x{i}", tuple(range(OPTIONS)), ordered=True) for i in range(CHOICES))

    def build(self, arch: Arch) -> nn.Module:
        raise CapabilityError(f"{arch} is no network")


class Total(CostModel):
    metric = "total"

    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        return torch.tensor([float(sum(a)) for a in archs], dtype=torch.float64)


class Squares(Evaluator):
    def __call__(self, proposal: Proposal, seed: int) -> dict[str, float]:  # noqa: ARG002 - nothing is random
        return {"accuracy": -float(squares(proposal.arch))}


def squares(numbers: Sequence[int]) -> int:
    return sum((x - 3) ** 2 for x in numbers)


def sartor_search(name: str) -> Callable[[Path, int], None]:
    def search(folder: Path, trials: int) -> None:
        problem = Problem(Numbers(), (Objective("accuracy", "max"),), (), {"total": Total()})
        strategy = plugins.load("strategies", name)(problem, 0, trials=trials)
        run(strategy, problem, Squares(), folder=folder / "run", seed=0)

    return search


def optuna_search(storage: str) -> Callable[[Path, int], None]:
    def search(folder: Path, trials: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if storage == "sqlite":
            kept = RDBStorage(f"sqlite:///{folder}/study.db")
        else:
            kept = JournalStorage(JournalFileBackend(str(folder / "study.log")))
        study = optuna.create_study(storage=kept, sampler=optuna.samplers.RandomSampler(seed=0))
        names = [f"x{i}" for i in range(CHOICES)]
        study.optimize(lambda t: squares([t.suggest_int(n, 0, OPTIONS - 1) for n in names]), n_trials=trials)

    return search


SEARCHES: dict[str, Callable[[Path, int], None]] = {
    "sartor random_search": sartor_search("random_search"),
    "sartor regularized_evolution": sartor_search("regularized_evolution"),
    "optuna random, journal file": optuna_search("journal"),
    "optuna random, SQLite": optuna_search("sqlite"),
}


def one(name: str, trials: int, place: Path) -> dict[str, float]:
    """Milliseconds per trial, of wall and of processor time."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir=place) as folder:
        SEARCHES[name](Path(folder), 5)  # imports
    with tempfile.TemporaryDirectory(dir=place) as folder:
        wall, own = time.perf_counter(), time.process_time()
        SEARCHES[name](Path(folder), trials)
        return {
            "wall_ms": 1000 * (time.perf_counter() - wall) / trials,
            "processor_ms": 1000 * (time.process_time() - own) / trials,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to measure")
    parser.add_argument("--out", type=Path, default=Path("trial_overhead.json"))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--one", nargs=2, metavar=("NAME", "TRIALS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one[0], int(given.one[1]), given.folder)))
        return
    rows = json.loads(given.out.read_text())["rows"] if given.out.exists() else []
    for k in range(given.rounds):
        for trials in sorted(set().union(*TRIALS.values())):
            for name in SEARCHES:
                if trials not in TRIALS[name.split()[0]] or any(
                    (r["round"], r["trials"], r["name"]) == (k, trials, name) for r in rows
                ):
                    continue
                command = [sys.executable, __file__, "--folder", str(given.folder), "--one", name, str(trials)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                rows.append({"round": k, "trials": trials, "name": name, **json.loads(done.stdout.splitlines()[-1])})
                write_json(given.out, {"machine": machine(), "rows": rows})
                print(rows[-1], flush=True)
    for name in SEARCHES:
        for n in TRIALS[name.split()[0]]:
            mine = [r for r in rows if (r["name"], r["trials"]) == (name, n)]
            wall, own = (median(r[key] for r in mine) for key in ("wall_ms", "processor_ms"))
            print(f"{name:32} {n:6} trials {wall:9.3f} ms each, {own:9.3f} of the processor")


def machine() -> dict[str, str]:
    return {"python": platform.python_version(), **{p: version(p) for p in ("torch", "optuna")}, "cpu": _cpu()}


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()

"""What a trial costs beside its evaluation when workers do it: sartor's processes and Ray, Ray Tune, Optuna's n_jobs.

One trivial objective (a sum of squares of ten whole numbers), drawn at random, the same number of trials at a time.
Every measurement is a process of its own; rounds interleave them, so that what else the machine does falls on all
alike. Starting (imports, processes, a Ray cluster) is not counted: the clock runs from the end of the first trial to
that of the last. Optuna's `n_jobs` are threads of one process, with its journal file; Ray Tune uses its actors again
for the next trial (`reuse_actors`), which is its fastest way.

    python benchmarks/worker_overhead.py --out benchmarks/results/worker_overhead.json

Goes on where it was stopped. `--speed-up` instead times real trainings with one and two workers of one thread each; it
needs the machine for itself:

    python benchmarks/worker_overhead.py --speed-up --out benchmarks/results/worker_speed_up.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from trial_overhead import CHOICES, OPTIONS, Numbers, Squares, Total, _cpu, squares

from sartor.core import plugins
from sartor.core.contracts import Problem
from sartor.core.records import Objective
from sartor.jobs.search import search
from sartor.run.folder import write_json
from sartor.run.journal import FileJournal
from sartor.run.lab import judged_job
from sartor.run.pool import Pool
from sartor.run.runner import run
from sartor.run.work import Order

TRIALS = {"sartor serial": 500, "sartor processes": 500, "sartor ray": 300, "optuna n_jobs": 500, "ray tune": 200}
WORKERS = 2
ROUNDS = 3


def work(_: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], dict[str, float]]:
    """What sartor's workers do."""
    evaluator = Squares()
    return lambda job: judged_job(evaluator, job, Path())


def sartor_search(kind: str) -> Callable[[Path, int], list[float]]:
    def searched(folder: Path, trials: int) -> list[float]:
        ends: list[float] = []
        problem = Problem(Numbers(), (Objective("accuracy", "max"),), (), {"total": Total()})
        strategy = plugins.load("strategies", "random_search")(problem, 0, trials=trials, batch=16)
        workers = plugins.load("run.workers", kind)(Order("worker_overhead:work"), count=WORKERS)
        with Pool(workers, FileJournal(folder / "workers.jsonl")) as pool:
            run(
                strategy,
                problem,
                Squares(),
                folder=folder,
                seed=0,
                pool=pool if kind != "serial" else None,
                on_trial=lambda _: ends.append(time.perf_counter()),
            )
        return ends

    return searched


def optuna_jobs(folder: Path, trials: int) -> list[float]:
    import optuna  # noqa: PLC0415 - each measurement imports what it measures
    from optuna.storages import JournalStorage  # noqa: PLC0415
    from optuna.storages.journal import JournalFileBackend  # noqa: PLC0415

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ends: list[float] = []
    kept = JournalStorage(JournalFileBackend(str(folder / "study.log")))
    study = optuna.create_study(storage=kept, sampler=optuna.samplers.RandomSampler(seed=0))
    names = [f"x{i}" for i in range(CHOICES)]
    study.optimize(
        lambda t: squares([t.suggest_int(n, 0, OPTIONS - 1) for n in names]),
        n_trials=trials,
        n_jobs=WORKERS,
        callbacks=[lambda *_: ends.append(time.perf_counter())],
    )
    return ends


def ray_tune(folder: Path, trials: int) -> list[float]:
    import ray  # noqa: PLC0415
    from ray import tune  # noqa: PLC0415

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ends: list[float] = []

    class Ends(tune.Callback):
        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    space = {f"x{i}": tune.randint(0, OPTIONS) for i in range(CHOICES)}
    tuner = tune.Tuner(
        lambda config: {"loss": float(squares(list(config.values())))},
        param_space=space,
        tune_config=tune.TuneConfig(num_samples=trials, metric="loss", mode="min", reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0, callbacks=[Ends()]),
    )
    tuner.fit()
    ray.shutdown()
    return ends


SEARCHES: dict[str, Callable[[Path, int], list[float]]] = {
    "sartor serial": sartor_search("serial"),
    "sartor processes": sartor_search("processes"),
    "sartor ray": sartor_search("ray"),
    "optuna n_jobs": optuna_jobs,
    "ray tune": ray_tune,
}


def one(name: str, place: Path) -> dict[str, float]:
    """Milliseconds per trial, from the end of the first to the end of the last."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir=place) as folder:
        ends = SEARCHES[name](Path(folder), TRIALS[name])
    return {"trials": len(ends), "ms": 1000 * (ends[-1] - ends[0]) / (len(ends) - 1)}


def trainings(count: int, place: Path, trials: int) -> dict[str, float]:
    """Seconds of real trainings on the digits, from the first trial's start to the last one's end."""
    warnings.simplefilter("ignore")
    config = {
        "seed": 0,
        "space": {"name": "tiny", "widths": [16, 32, 48, 64]},
        "task": {"name": "digits", "size": 16, "batch": 64},
        "target": {"name": "torch_cpu"},
        "budget": {"macs": "80%"},
        "strategy": {"name": "random_search", "trials": trials, "batch": trials},
        "evaluator": {"name": "train"},
        "training": {"epochs": 10},
        "workers": {"name": "processes", "count": count},
    }
    with tempfile.TemporaryDirectory(dir=place) as folder:
        out = Path(folder) / "out"
        search(config, out, command="benchmark")
        ran = [r["by"]["seconds"] for r in FileJournal(out / "search" / "workers.jsonl").read() if r["kind"] == "ran"]
        times = FileJournal(out / "journal.jsonl").read()
        spent = sum(r["seconds"] for r in times if r["kind"] == "time" and r["stage"] == "search")
    return {"workers": count, "trials": len(ran), "trial_seconds": median(ran), "sum_seconds": sum(ran), "wall": spent}


def measured(arguments: Sequence[str]) -> dict[str, Any]:
    """What a process of this script says."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, capture_output=True, text=True, env=environment
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to measure")
    parser.add_argument("--out", type=Path, default=Path("worker_overhead.json"))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--speed-up", action="store_true", help="real trainings with one and two workers")
    parser.add_argument("--trials", type=int, default=40, help="of the real trainings")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.folder)))
        return
    if given.count:
        print(json.dumps(trainings(given.count, given.folder, given.trials)))
        return
    names = ["1", "2"] if given.speed_up else list(SEARCHES)
    rows = json.loads(given.out.read_text())["rows"] if given.out.exists() else []
    for k in range(given.rounds):
        for name in names:
            if any((r["round"], r["name"]) == (k, name) for r in rows):
                continue
            what = ["--count", name, "--trials", str(given.trials)] if given.speed_up else ["--one", name]
            rows.append({"round": k, "name": name, **measured(["--folder", str(given.folder), *what])})
            write_json(given.out, {"machine": machine(), "rows": rows})
            print(rows[-1], flush=True)
    if given.speed_up:
        walls = {name: [r["wall"] for r in rows if r["name"] == name] for name in names}
        print(f"speed-up {median(walls['1']) / median(walls['2']):.2f}, start of the workers included")
        return
    for name in names:
        print(f"{name:20} {median(r['ms'] for r in rows if r['name'] == name):8.2f} ms per trial")


def machine() -> dict[str, str]:
    found = {"cpu": _cpu(), "cores": str(os.cpu_count())}
    for package in ("torch", "optuna", "ray"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


if __name__ == "__main__":
    main()

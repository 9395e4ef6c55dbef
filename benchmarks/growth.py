"""How it grows: what a trial, an opening, a page, a benchmark, a comparison and a latency model cost, at more and more.

Every row is a process of its own. A search is one long run whose trials cost nothing to evaluate; the time of a trial
is that of the hundred (of long searches: the thousand) trials before a mark. Times are of the processor.

    python benchmarks/growth.py --folder /a/disk --out benchmarks/results/growth.json
    python benchmarks/growth.py --table benchmarks/results/growth.json      # the table of docs/growth.md

Goes on where it was stopped: what the file has is not measured again.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sartor import archs
from sartor.core import plugins
from sartor.core.abilities import Terms
from sartor.core.contracts import CostModel, Evaluator, Problem, Space
from sartor.core.errors import CapabilityError
from sartor.core.metrics import Metric
from sartor.core.records import Arch, Choice, Constraint, Objective, Proposal, Trial
from sartor.core.rng import derive
from sartor.core.tables import Tables
from sartor.costs.fitted import Fitted
from sartor.costs.macs import Macs
from sartor.jobs.bench import Bench, bench
from sartor.jobs.compare.statistics import Frame, history
from sartor.latency.samples import Sample
from sartor.report.front import hypervolume_history
from sartor.run.folder import write_json
from sartor.run.journal import FileJournal
from sartor.run.runner import run
from sartor.spaces.mobilenet_v1 import MobilenetV1
from sartor.surrogates.embedding import Recipe

LONG = {
    "random_search": 20000,
    "regularized_evolution": 20000,
    "local_search": 20000,
    "reinforce": 20000,
    "ppo": 20000,
    "hyperband": 20000,
    "successive_halving": 20000,
    "bohb": 2000,
    "n2n": 2000,
    "layernas": 2000,
    "optuna_sampler": 1000,
    "esnac": 500,
}
"""Trials of each search: those of which a trial takes longer than the bookkeeping are shorter."""
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "esnac": {"kernels": 2, "candidates": 100, "embedding": Recipe(hidden=8, layers=1, updates=10)},
}
"""Smaller than the usual ones, which grow alike."""
MARKS = (200, 500, 1000, 2000, 5000, 10000, 20000)


class Numbers(Space):
    """Ten choices of eight; there is no network."""

    choices = tuple(Choice(f"x{i}", tuple(range(8)), ordered=True) for i in range(10))

    def build(self, arch: Arch) -> nn.Module:
        raise CapabilityError(f"{arch} is no network")


class Total(CostModel):
    """The sum of the numbers."""

    metric = "total"
    tables = Tables(tuple(torch.arange(8, dtype=torch.float64) for _ in range(10)), {}, 0.0)

    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        return self.tables(archs)

    def terms(self) -> Sequence[Tables]:
        return (self.tables,)


class Squares(Evaluator):
    """The nearer to 3 the better, with noise."""

    def __call__(self, proposal: Proposal, seed: int) -> dict[str, float]:
        return {"accuracy": 1 / (1 + sum((x - 3) ** 2 for x in proposal.arch)) + derive(seed, "noise") / 2**70}


def problem() -> Problem:
    assert isinstance(Total(), Terms)
    return Problem(Numbers(), (Objective("accuracy", "max"),), (Constraint("total", 40.0),), {"total": Total()})


def search(name: str, trials: int, folder: Path) -> dict[str, float]:
    """Milliseconds per trial before each mark."""
    posed, clock = problem(), [time.process_time()]
    strategy = plugins.load("strategies", name)(posed, 0, trials=trials, **SETTINGS.get(name, {}))

    def on_trial(_: Trial) -> None:
        clock.append(time.process_time())

    run(strategy, posed, Squares(), folder=folder / "run", seed=0, on_trial=on_trial)
    found = {}
    for mark in (m for m in MARKS if m < len(clock)):
        window = 100 if mark < 5000 else 1000
        found[str(mark)] = 1000 * (clock[mark] - clock[mark - window]) / window
    state = next((folder / "run").glob("state*"))
    return {**found, "checkpoint_bytes": float(state.stat().st_size)}


def opening(name: str, trials: int, folder: Path) -> dict[str, float]:
    """Seconds to open a run that has finished."""
    posed = problem()

    def strategy() -> Any:
        return plugins.load("strategies", name)(posed, 0, trials=trials)

    run(strategy(), posed, Squares(), folder=folder / "run", seed=0)
    again, wall, start = strategy(), time.perf_counter(), time.process_time()
    run(again, posed, Squares(), folder=folder / "run", seed=0)
    return {"seconds": time.process_time() - start, "wall_seconds": time.perf_counter() - wall}


def page(_: str, trials: int, folder: Path) -> dict[str, float]:
    """Seconds to draw a report, its size, and seconds until Chromium, where there is one, has drawn it, too."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from report.fixture import synthetic  # noqa: PLC0415 - of the tests
    from sartor.report.page import render  # noqa: PLC0415 - slow to import

    result, trace = synthetic()
    every = tuple(replace(trace.trials[i % 120], index=i) for i in range(trials))
    start = time.process_time()
    whole = render(result, replace(trace, trials=every, logs=()), folder)
    found = {"seconds": time.process_time() - start, "megabytes": len(whole.encode()) / 1e6}
    (folder / "report.html").write_text(whole, encoding="utf-8")
    start, own = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=100", "--dump-dom"]
    try:
        subprocess.run([*browser, str(folder / "report.html")], check=True, capture_output=True, timeout=120)
    except (FileNotFoundError, subprocess.SubprocessError):
        return found
    own = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - own
    return {**found, "chromium_seconds": time.perf_counter() - start, "chromium_processor_seconds": own}


def benched(_: str, trials: int, _folder: Path) -> dict[str, float]:
    """Seconds of `sartor bench` with one run of random search and one of evolution."""
    strategies = {name: {"name": name} for name in ("random_search", "regularized_evolution")}
    short, start = (
        Bench(space="digits_widths", table="", strategies=strategies, evaluations=10, runs=1),
        time.process_time(),
    )
    bench(short)
    base, start = time.process_time() - start, time.process_time()
    bench(replace(short, evaluations=trials))
    return {"seconds": time.process_time() - start, "of_which_to_begin": base}


def compared(_: str, trials: int, folder: Path) -> dict[str, float]:
    """Seconds to read a search of a comparison, and to draw its hypervolumes."""
    journal, spent, rng = FileJournal(folder / "journal.jsonl"), FileJournal(folder / "spent.jsonl"), np.random
    values = rng.default_rng(0).random((trials, 2)).tolist()
    for i, (quality, cost) in enumerate(values):
        row = {"index": i, "arch": [0], "fidelity": 1.0, "metrics": {"accuracy": quality, "macs": cost}, "error": None}
        journal.append({"kind": "trial", **row}, soon=True)
        spent.append({"kind": "spent", "trials": i + 1, "seconds": 0.01}, soon=True)
    frame = Frame(Metric("accuracy", "max"), {"macs": 0.9}, {"macs": 1.0})
    start = time.process_time()
    rows, _used = history(folder, frame, lambda fidelity: fidelity)
    read = time.process_time() - start
    hypervolume_history([(r.cost or 0.0, r.quality or 0.0) for r in rows], (1.0, 0.0))
    return {"seconds": read, "hypervolume_seconds": time.process_time() - start - read}


def latency_model(_: str, samples: int, _folder: Path) -> dict[str, float]:
    """Seconds to fit a latency model to so many networks, of made-up latencies."""
    space = MobilenetV1(width=0.5)
    rng, macs = np.random.default_rng(0), Macs(space)
    drawn = [space.moves.draw(rng) for _ in range(samples)]
    costs = macs(drawn).numpy() / float(macs([archs.largest(space)])[0])
    have = [
        Sample(arch, v, 0.99 * v, 1.01 * v, v, "heldout" if i % 5 == 0 else "train")
        for i, (arch, v) in enumerate(
            zip(drawn, (0.2 + costs) * (1 + 0.01 * rng.standard_normal(samples)), strict=True)
        )
    ]
    start = time.process_time()
    model = Fitted.of(space, have, kind="auto")
    seconds = time.process_time() - start
    return {"seconds": seconds, "nrmse": model.nrmse}


Job = Callable[[str, int, Path], dict[str, float]]
JOBS: list[tuple[str, Job, str, Sequence[int]]] = [
    *((f"search {name}", search, name, (trials,)) for name, trials in LONG.items()),
    ("open a run", opening, "regularized_evolution", (1000, 10000, 100000)),
    ("report", page, "", (200, 2000, 20000)),
    ("bench", benched, "", (100, 1000, 10000)),
    ("compare, read one search", compared, "", (200, 2000, 20000)),
    ("latency model", latency_model, "", (50, 500, 5000)),
]


def one(index: int, size: int, place: Path) -> dict[str, float]:
    warnings.simplefilter("ignore")
    _, job, name, _ = JOBS[index]
    with tempfile.TemporaryDirectory(dir=place) as folder:
        return job(name, size, Path(folder))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: searches by their marks, then everything else by its sizes."""
    shown = [m for m in MARKS if any(str(m) in r["found"] for r in rows)]
    lines = ["| search, ms per trial | " + " | ".join(f"{m:,}" for m in shown) + " | checkpoint, bytes |"]
    lines.append("|---" * (len(shown) + 2) + "|")
    for r in (r for r in rows if r["what"].startswith("search ")):
        cells = [f"{r['found'][str(m)]:.3g}" if str(m) in r["found"] else "" for m in shown]
        lines.append(f"| `{r['what'][7:]}` | " + " | ".join(cells) + f" | {r['found']['checkpoint_bytes']:,.0f} |")
    lines += ["", "| what | size | seconds | also |", "|---|---|---|---|"]
    for r in (r for r in rows if not r["what"].startswith("search ")):
        also = ", ".join(f"{k.replace('_', ' ')} {v:.3g}" for k, v in r["found"].items() if k != "seconds")
        lines.append(f"| {r['what']} | {r['size']:,} | {r['found']['seconds']:.3g} | {also} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to measure")
    parser.add_argument("--out", type=Path, default=Path("growth.json"))
    parser.add_argument("--table", type=Path, help="print a file's table, and measure nothing")
    parser.add_argument("--one", nargs=2, type=int, metavar=("JOB", "SIZE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.table:
        print(table(json.loads(given.table.read_text())["rows"]))
        return
    if given.one:
        print(json.dumps(one(given.one[0], given.one[1], given.folder)))
        return
    rows = json.loads(given.out.read_text())["rows"] if given.out.exists() else []
    for index, (what, _, _, sizes) in enumerate(JOBS):
        for size in sizes:
            if any((r["what"], r["size"]) == (what, size) for r in rows):
                continue
            command = [sys.executable, __file__, "--folder", str(given.folder), "--one", str(index), str(size)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append({"what": what, "size": size, "found": json.loads(done.stdout.splitlines()[-1])})
            write_json(given.out, {"torch": torch.__version__, "rows": rows})
            print(rows[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()

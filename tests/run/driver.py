"""A search with workers in a process of its own, for tests that end it: `run.toys` as JSON on the command line.

Usage: driver.py SETTINGS, a JSON object with `folder`, `kind`, `table` (the settings of the workers), `trials`,
`batch`, `window` and `work` (see `run.toys.scores`). The functions below start it, look into it and kill parts of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sartor
from run.toys import Draws, Score, problem
from sartor.core import plugins
from sartor.run.journal import FileJournal
from sartor.run.pool import Pool
from sartor.run.runner import run
from sartor.run.work import Order

PATIENCE = 120.0


def main(told: dict[str, Any]) -> None:
    """The search, or the rest of it."""
    p, folder = problem(), Path(told["folder"])
    strategy = Draws(p, 0, batch=told["batch"], trials=told["trials"])
    strategy.window = told.get("window", 1)
    workers = plugins.load("workers", told["kind"])(Order("run.toys:scores", told["work"]), **told["table"])
    with Pool(workers, FileJournal(folder / "workers.jsonl")) as pool:
        run(strategy, p, Score(), folder=folder, seed=0, pool=pool if told["table"]["count"] else None)


def begin(
    folder: Path, kind: str, count: int, *, trials: int = 30, batch: int = 6, **work: Any
) -> subprocess.Popen[str]:
    """Start or go on with a search; `table` in `work` are further settings of the workers."""
    table = {"count": count, **work.pop("table", {})}
    told = {"folder": str(folder), "kind": kind, "table": table, "trials": trials, "batch": batch, "work": work}
    tests = Path(__file__).parents[1]
    path = [str(Path(sartor.__file__).parents[1]), str(tests), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", __file__, json.dumps(told)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(driver: subprocess.Popen[str]) -> None:
    """Wait until it is done, and has found nothing wrong."""
    _, said = driver.communicate(timeout=PATIENCE * 5)
    assert driver.returncode == 0, said


def kill(process: int) -> None:
    """As the system does when memory is short."""
    os.kill(process, signal.SIGKILL)


def until(look: Callable[[], Any], driver: subprocess.Popen[str]) -> Any:
    """What `look` sees, once it sees something; nothing if the driver has ended."""
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        if found := look():
            return found
        if driver.poll() is not None:
            return None
        time.sleep(0.002)
    raise AssertionError("nothing happened")


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    """What the pool has kept of a kind."""
    path = folder / "workers.jsonl"
    return [r for r in FileJournal(path).read() if r["kind"] == kind]


def under_way(folder: Path, marks: Path) -> dict[int, int]:
    """Trials that have begun and have no result, and the process that is at each; those that died twice are spared."""
    begun = {int(p.name): p.read_text().split() for p in marks.iterdir()}
    ended = {r["index"] for r in records(folder, "ran")}
    last = {index: int(tried[-1]) for index, tried in begun.items() if index not in ended and 0 < len(tried) < 3}
    return {index: process for index, process in last.items() if Path(f"/proc/{process}").exists()}


def times(marks: Path) -> int:
    """How often trials have begun."""
    return sum(len(p.read_text().split()) for p in marks.iterdir())


def descendants(process: int, name: str) -> list[int]:
    """Processes that a process has started, directly or not, and that are called so."""
    parents: dict[int, tuple[int, str]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, tail = path.read_text().rpartition(")")
        except OSError:
            continue
        parents[int(path.parent.name)] = int(tail.split()[1]), head.partition("(")[2]

    def below(pid: int) -> bool:
        while pid in parents:
            pid = parents[pid][0]
            if pid == process:
                return True
        return False

    return [pid for pid, (_, called) in parents.items() if called == name and below(pid)]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

"""Kill searches with SIGKILL at random lines of sartor's own code, go on, and compare: run by test_runner.py.

Usage: crash.py FOLDER RUNS SEED. Prints one JSON object. A line is chosen by counting the line events of
`sys.settrace` in sartor/run and sartor/core, so that a kill hits every place between two writes sooner or later. Forked
children, because starting Python and importing torch takes longer than the searches.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np

import sartor
from run.toys import Score, Walk, outcome, problem, same
from sartor.run import runner

Line = tuple[str, int]

HERE = [str(Path(sartor.__file__).parent / part) for part in ("run", "core")]
READING = {"read", "_parse", "read_logs", "read_trials", "_trial", "_unfinished_starts", "<genexpr>", "<listcomp>"}
"""Functions that change nothing: most of the lines, and all alike for a kill."""


def session(folder: Path, kill_at: tuple[Line, int] | None) -> Counter[Line]:
    """Go on with the search in this process, to its end or to the n-th time at a line; how often each line ran."""
    lines: Counter[Line] = Counter()

    def trace(frame, event, arg):
        code = frame.f_code
        if not code.co_filename.startswith(tuple(HERE)) or code.co_name in READING:
            return None
        if event == "line":
            line = (code.co_filename, frame.f_lineno)
            lines[line] += 1
            if (line, lines[line]) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    p = problem()
    sys.settrace(trace)
    try:
        assert runner.run(Walk(p, 0), p, Score(), folder=folder, seed=0)
    finally:
        sys.settrace(None)
    return lines


def child(folder: Path, kill_at: tuple[Line, int] | None) -> int:
    """The same in a forked process; its wait status (0: finished, SIGKILL: killed)."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            session(folder, kill_at)
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


def main(folder: Path, runs: int, seed: int) -> None:
    import tensorboard.summary.writer.record_writer  # noqa: F401 - imported once, not by every child
    import torch

    torch.set_num_threads(1)
    usual, runner.LAG = runner.LAG, 0.0  # of which a short search reaches a checkpoint after every step
    counts = session(folder / "whole", None)
    wanted = outcome(folder / "whole")
    lines, rng = sorted(counts), np.random.default_rng(seed)
    kills, different = 0, []
    for i in range(runs):
        runner.LAG = 0.0 if i % 2 else usual
        points = []
        for _ in range(3):  # every line is as likely as any other, however often it runs
            line = lines[int(rng.integers(len(lines)))]
            points.append((line, int(rng.integers(1, counts[line] + 1))))
        statuses = [child(folder / str(i), point) for point in points] + [child(folder / str(i), None)]
        kills += statuses.count(signal.SIGKILL)
        if statuses[-1] != 0 or not same(list(outcome(folder / str(i))), list(wanted)):
            different.append({"kill_at": points, "statuses": statuses})
    print(json.dumps({"lines": len(lines), "kills": kills, "trials": len(wanted[0]), "different": different}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

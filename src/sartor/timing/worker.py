"""What a fresh process does: open sessions of files, and time them in rounds or watch the memory that they take.

Run as `python -m sartor.timing.worker`, or by `sartor.timing.processes.ask`, with a job as JSON on its standard input.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from sartor.core import plugins
from sartor.core.contracts import Target
from sartor.core.errors import TargetError
from sartor.timing import inputs
from sartor.timing.rounds import Call, interleave

Tell = Callable[[Mapping[str, Any]], None]


def main() -> None:
    """Read the job, do it, answer in lines of JSON."""
    with _answers_only() as answers:

        def tell(answer: Mapping[str, Any]) -> None:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()

        job = json.load(sys.stdin)
        TASKS[job["task"]](job, tell)


def _answers_only() -> IO[str]:
    """The standard output, which from now on is nobody else's: runtimes that print do so to the standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(kept, "w", encoding="utf-8")


def time(job: Mapping[str, Any], tell: Tell) -> None:
    """Open sessions of every subject, bound to their inputs, and time them in interleaved rounds."""
    targets = _targets(job["subjects"], tell)
    calls: dict[str, list[Call]] = {}
    for subject, target in zip(job["subjects"], targets, strict=True):
        enters = inputs.read(Path(subject["inputs"]))
        calls[subject["name"]] = [
            target.load(Path(subject["artifact"])).bind(enters) for _ in range(subject["sessions"])
        ]
    timed = interleave(calls, on_round=lambda done, total: tell({"round": [done, total]}), **job["how"])
    tell({"rounds": timed.as_dict()})


def watch(job: Mapping[str, Any], tell: Tell) -> None:
    """By how many bytes this process grows, at its peak, when it opens the subject and runs it three times."""
    (subject,) = job["subjects"]
    (target,) = _targets(job["subjects"], tell)
    enters = inputs.read(Path(subject["inputs"]))
    gc.collect()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # makes the high-water mark start again here
    call = target.load(Path(subject["artifact"])).bind(enters)
    for _ in range(3):
        call()
    tell({"bytes": max(0, _status("VmHWM") - before)})


TASKS = {"time": time, "watch": watch}


def _targets(subjects: Sequence[Mapping[str, Any]], tell: Tell) -> list[Target]:
    """The target of each subject, one object for all that name the same."""
    made: dict[str, Target] = {}
    found = []
    for subject in subjects:
        key = json.dumps([subject["target"], subject["settings"]], sort_keys=True)
        if key not in made:
            made[key] = _made(subject, tell)
        found.append(made[key])
    return found


def _made(subject: Mapping[str, Any], tell: Tell) -> Target:
    try:
        target: Target = plugins.load("targets", subject["target"])(**subject["settings"])
        says = dict(target.describe())
    except Exception as error:  # whatever a private class may do; the process that asked knows another way
        tell({"stranger": f"{type(error).__name__}: {error}"})
        raise SystemExit(0) from error
    if says != subject["says"]:
        tell({"stranger": f"made again, it describes itself as {says}, not as {subject['says']}"})
        raise SystemExit(0)
    return target


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise TargetError(f"/proc/self/status has no {field}; memory can be measured on Linux only")


if __name__ == "__main__":
    main()

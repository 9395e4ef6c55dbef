"""A/A runs: do two independent measurements of the same files agree? Figures for docs/measuring.md.

    OMP_NUM_THREADS=1 python benchmarks/aa_verify.py

Each measurement is what `sartor verify` does with the default settings: fresh processes time the files of a reference
and of other networks in the same rounds; the interval of a ratio covers the scatter between processes. Of the two of a
pair it is counted how often their intervals overlap; and, for comparison, how often those of their first processes do,
each of which speaks of itself alone. Resumable:
measurements are kept in `aa_verify.raw.jsonl`, beside the results. No data is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import EXAMPLE, REFERENCE, build

from sartor.core.files import atomically
from sartor.exporting import export_onnx
from sartor.jobs.fit.assemble import VerificationSettings
from sartor.run.stopwatch import Stopwatch
from sartor.targets.onnxruntime import OnnxRuntime
from sartor.timing import estimate
from sartor.timing.machine import machine
from sartor.timing.meter import Effort, Subject, time_together
from sartor.timing.rounds import Rounds

OTHERS = ("mobilenet_v2 x 0.75", "small")


def measured(files: dict[str, Path], effort: Effort, seed: int) -> dict[str, Any]:
    """One measurement: the rounds of all its processes."""
    watch, load = Stopwatch(), os.getloadavg()[0]
    subjects = {name: Subject.of_file(OnnxRuntime(), path, EXAMPLE) for name, path in files.items()}
    timed = time_together(subjects, effort, reference=REFERENCE, seed=seed)
    assert not timed.note, timed.note
    return {"seconds": round(watch.lap(), 1), "load": load, "runs": [run.as_dict() for run in timed.runs]}


def ratios(measurement: dict[str, Any], name: str) -> dict[str, Any]:
    """The ratio of a network, from all processes, and from each by itself."""
    runs = [Rounds.of(run) for run in measurement["runs"]]
    each = [estimate.ratio(run, name, REFERENCE).as_dict() for run in runs]
    return {**estimate.ratio(runs, name, REFERENCE).as_dict(), "each": each}


def overlap(a: dict[str, float], b: dict[str, float]) -> bool:
    return a["low"] <= b["high"] and b["low"] <= a["high"]


def half_width(found: dict[str, float]) -> float:
    return (found["high"] - found["low"]) / 2 / found["value"]


def judged(both: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """What the pairs say of one network."""
    every = [found for pair in both for found in pair]
    scatter = [np.var(np.log([e["value"] for e in found["each"]]), ddof=1) for found in every]
    centre = float(np.exp(np.mean([np.log(found["value"]) for found in every])))
    return {
        "pairs": len(both),
        "overlap": sum(overlap(a, b) for a, b in both),
        "overlap_of_first_processes": sum(overlap(a["each"][0], b["each"][0]) for a, b in both),
        "contain_the_mean_of_all": sum(found["low"] <= centre <= found["high"] for found in every),
        "median_half_width": float(np.median([half_width(found) for found in every])),
        "median_half_width_of_one_process": float(np.median([half_width(found["each"][0]) for found in every])),
        "median_disagreement": float(np.median([abs(a["value"] / b["value"] - 1) for a, b in both])),
        "deviation_between_processes": float(np.sqrt(np.mean(scatter))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = VerificationSettings().effort
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=default.rounds)
    parser.add_argument("--sessions", type=int, default=default.sessions)
    parser.add_argument("--processes", type=int, default=default.processes)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "aa_verify.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    effort = Effort(arguments.rounds, arguments.sessions, arguments.processes)
    settings = {"rounds": effort.rounds, "sessions": effort.sessions, "processes": effort.processes}
    raw = arguments.output.with_suffix(".raw.jsonl")
    done = [json.loads(line) for line in raw.read_text().splitlines()] if raw.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.onnx" for name in (REFERENCE, *OTHERS)}
        for name, path in files.items():
            export_onnx(build(name), EXAMPLE, path)
        for seed in range(len(done), 2 * arguments.pairs):
            done.append({"settings": settings, **measured(files, effort, seed)})
            atomically(raw, lambda part: part.write_text("".join(json.dumps(d) + "\n" for d in done)))
            print(f"{seed + 1} of {2 * arguments.pairs}: {done[-1]['seconds']:.0f} s", flush=True)
    if any(d["settings"] != settings for d in done):
        raise SystemExit(f"{raw} holds measurements with other settings; remove it, or give --output another name")
    found = summary(done)
    text = json.dumps({"settings": settings, **found}, indent=1) + "\n"
    atomically(arguments.output, lambda part: part.write_text(text))
    print(json.dumps({name: found[name] for name in OTHERS}, indent=1))


def summary(done: list[dict[str, Any]]) -> dict[str, Any]:
    """What the complete pairs say, by network; and the estimates that it rests on."""
    loads, seconds = ([d[name] for d in done] for name in ("load", "seconds"))
    facts = {
        "machine": machine(),
        "load_averages": {"least": min(loads), "median": float(np.median(loads)), "most": max(loads)},
        "median_seconds": float(np.median(seconds)),
    }
    estimates = {name: [ratios(d, name) for d in done] for name in OTHERS}
    pairs = {name: list(zip(found[::2], found[1::2], strict=False)) for name, found in estimates.items()}
    return {**facts, **{name: judged(both) for name, both in pairs.items()}, "estimates": estimates}


if __name__ == "__main__":
    main()

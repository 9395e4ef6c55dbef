"""Killed around every record of a fit's journal, one after another, and resumed: as if it had never been killed.

The points are those of the journal of an uninterrupted run: whatever stage comes to a fit is tried, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import nets
from sartor.core.records import Estimate
from sartor.run.result import read_result
from small import latency_settings, settings

SERVER = """
import contextlib, importlib, json, os, sys
from pathlib import Path
from sartor.jobs.fit.api import fit_config
from sartor.run.journal import FileJournal

from test_kills import around, tried

config, folder, points = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
append = FileJournal.append

def killing(journal, record, *, soon=False):
    before, after = around(record) if journal.path.parent == folder else ((), ())
    for point in before:
        die(point)
    append(journal, record, soon=soon)
    for point in after:
        die(point)

def die(point):
    if not tried(point, sys.argv[5]):
        return
    known = points.read_text().splitlines() if points.exists() else []
    if point not in known:
        points.write_text("\\n".join([*known, point]))
        os._exit(9)  # no block is left, no buffer is flushed: what SIGKILL does, at a point of our choice

FileJournal.append = killing
for module in json.loads(sys.argv[4]):  # once for all children
    with contextlib.suppress(Exception):
        importlib.import_module(module)
for _ in range(100):
    child = os.fork()
    if not child:
        fit_config(config, folder, command="same")
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 9:
        sys.exit(status)
sys.exit("it never ended")
"""

CONFIGS = {
    "trained": settings(
        space={"name": "widths", "network": "nets:digits", "weights": "digits.safetensors"},
        training={"epochs": 2, "lr": 0.05, "distil_weight": 0.5},
    ),
    "untrained": settings(
        strategy={"name": "random_search"}, evaluator={"name": "train"}, training={"epochs": 1}, limits={"trials": 3}
    ),
    "milliseconds": latency_settings(
        latency_model={"networks": 8, "heldout": 2, "sweeps": 1, "rounds": 2, "kind": "macs"}
    ),
}


def tried(point: str, config: str) -> bool:
    """Whether a fit is killed at a point: all of them with the first config, and what differs in the others."""
    when, kind, name, *_ = point.split()
    if config == "trained":
        return True
    measured = kind == "stage" and name.startswith(("reference.latency", "latency_model", "choice.searched"))
    return when == "before" and (config != "milliseconds" or measured)


def run(program: str, *arguments: str) -> str:
    path = os.pathsep.join(
        [str(Path(__file__).parents[2]), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, "-W", "ignore", "-c", program, *arguments]
    done = subprocess.run(command, env=environment, check=False, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    return done.stdout


WHOLE = """
import json, sys
from pathlib import Path
from sartor.jobs.fit.api import fit_config
before = set(sys.modules)
fit_config(json.loads(sys.argv[1]), Path(sys.argv[2]), command="same")
print(json.dumps([m for m in sys.modules if m not in before and "." in m and "__" not in m]))
"""


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def around(record: dict) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The points to be killed at before a record is written, and after it."""
    match record:
        case {"kind": "epoch", "epoch": number, "network": network}:
            return (f"before epoch {number} of {network}",), ()
        case {"kind": "fitted" as kind, "network": name}:
            return (f"before {kind} {name}",), (f"after {kind} {name}",)
        case {"kind": "time"}:
            return (), ()
        case {"kind": kind, "name": name}:
            return (f"before {kind} {name}",), (f"after {kind} {name}",)
    raise AssertionError(f"a record without a name: {record}")


def points(folder: Path) -> list[str]:
    """All points of a journal, in its order."""
    return [point for record in records(folder) for side in around(record) for point in side]


def kept(folder: Path) -> set[str]:
    """The files of a run; those for TensorBoard have the time in their names."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.parent.name != "tensorboard"}


@pytest.mark.parametrize("kind", CONFIGS)
def test_killed_around_every_record_and_resumed_equals_uninterrupted(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    save_file(nets.random_(nets.digits()).state_dict(), "digits.safetensors")
    config, whole, killed = json.dumps(CONFIGS[kind]), tmp_path / "whole", tmp_path / "killed"
    modules = run(WHOLE, config, str(whole))
    run(SERVER, config, str(killed), str(tmp_path / "points"), modules, kind)
    once = points(whole)
    assert sorted((tmp_path / "points").read_text().splitlines()) == sorted(p for p in once if tried(p, kind))
    again = [p for p in points(killed) if not p.endswith("result.json")]  # which is written, and recorded, again
    assert sorted(again) == sorted(p for p in once if not p.endswith("result.json")), "a record is missing, or double"
    stages = {p.split()[2].partition(".")[0] for p in once if " stage " in p}
    assert {"reference", "search", "choice", "training", "export", "verification", "test"} <= stages
    assert kept(killed) == kept(whole), "something was left behind"
    first, second = (read_result(folder) for folder in (whole, killed))
    exact = "latency_ms" not in CONFIGS[kind]["budget"]
    for own, other in zip(first.spent.stages, second.spent.stages, strict=True):
        assert own.name == other.name
        assert own.networks_trained == other.networks_trained, own.name
        assert own.networks_measured == other.networks_measured or not exact, own.name
    if exact:
        times = Estimate(0, 0, 0)
        networks = [{k: replace(e, latency_ms=times) for k, e in r.networks.items()} for r in (first, second)]
        assert networks[0] == networks[1]
        assert first.search == second.search
        weights = [load_file(folder / "model.safetensors") for folder in (whole, killed)]
        assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])

"""Journals of short runs, exactly as they were: a change of any number is seen, and either meant or a defect.

Pinned to one platform and one version of torch; elsewhere skipped. `python tests/golden/test_journals.py` writes anew.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from problems import small_problem  # noqa: E402 - run as a script, too
from sartor.core import plugins  # noqa: E402
from sartor.evaluators.synthetic import Synthetic  # noqa: E402
from sartor.run.journal import FileJournal, read_trials  # noqa: E402
from sartor.run.runner import Limits, run  # noqa: E402

NAMES = plugins.names("strategies")
PIN = {"torch": torch.__version__, "machine": platform.machine()}


def pin(name):
    """What a journal depends on beside our own code."""
    return {**PIN, "optuna": version("optuna")} if name == "optuna_sampler" else PIN


def journal(name):
    """Trials of a short run, with numbers that survive other orders of summation."""
    problem = small_problem()
    cls = plugins.load("strategies", name)
    strategy = cls(problem, 0, **cls.smoke)
    with tempfile.TemporaryDirectory() as folder:
        run(strategy, problem, Synthetic(problem), folder=Path(folder), seed=0, limits=Limits(trials=20))
        trials = read_trials(FileJournal(Path(folder) / "journal.jsonl"))
    return [[list(t.arch), t.fidelity, {k: float(f"{v:.6g}") for k, v in t.metrics.items()}] for t in trials]


@pytest.mark.parametrize("name", NAMES)
def test_journal(name):
    path = HERE / f"{name}.json"
    assert path.exists(), f"no golden journal of {name}; write it with python {Path(__file__).name}"
    stored = json.loads(path.read_text())
    if stored["pin"] != pin(name):
        pytest.skip(f"pinned to {stored['pin']}, this is {pin(name)}")
    assert journal(name) == stored["trials"]


if __name__ == "__main__":
    for each in NAMES:
        text = json.dumps({"pin": pin(each), "trials": journal(each)}) + "\n"
        (HERE / f"{each}.json").write_text(text)

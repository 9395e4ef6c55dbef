"""The numbers in docs/testing.md are those of the tests."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from contracts import checks, test_strategies
from disk import MANNERS
from jobs import test_damaged_folders as damaged
from run import test_disk_faults as faults
from run import test_run_machine as machine
from run.test_runner import CRASHES
from sartor.core import plugins

PAGE = Path(__file__).parents[1] / "docs" / "testing.md"


def said() -> dict[str, int]:
    """First cell, what stands in backquotes, and the number in the last."""
    rows = re.findall(r"^\| `([^`]+)`.*\| (\d+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: int(number) for name, number in rows}


def parameters(test: object) -> int:
    """Of a parametrised test."""
    return sum(len(mark.args[1]) for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize")


@pytest.fixture
def disk(tmp_path, monkeypatch) -> dict[str, int]:
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    found, total = {}, 0
    for name, lag in faults.LAGS.items():
        for module in ("runner", "journal"):
            monkeypatch.setattr(f"sartor.run.{module}.LAG", lag)
        counts = faults.calls(tmp_path / name)
        found[f"calls that fail, in a session that syncs {name}"] = counts.total()
        total += counts.total() * len(MANNERS) + sum(counts[kind] for kind in faults.TWICE)
    return {**found, "faults in all": total}


def test_the_page_has_the_numbers_of_the_tests(disk, tmp_path):
    killed = parameters(test_strategies.test_killed_in_a_trial_resumes_exactly)
    found = {
        "strategies": len(plugins.names("strategies")),
        "interrupts per strategy": killed + parameters(test_strategies.test_killed_in_a_step_resumes_exactly),
        "ends without a last word per strategy": len(checks.WORDLESS),
        "larger budgets per strategy": parameters(test_strategies.test_a_larger_budget_goes_on_exactly),
        "trials of the two searches whose checkpoints must be of one size": checks.FEW + checks.MANY,
        "manners": len(MANNERS),
        "kills at random lines": 3 * CRASHES,
        "sequences": machine.TestRuns.settings.max_examples,
        "sequences, by hand with -m slow": machine.TestManyRuns.settings.max_examples,
        "ways to damage a file": len(damaged.WAYS),
        "files of a finished search": len(damaged.files_of(damaged.searched(tmp_path / "a", trials=100))),
        "files of a half-done search": len(damaged.files_of(damaged.searched(tmp_path / "b", trials=4))),
        **disk,
    }
    assert said() == found


def test_the_page_names_files_that_are_there():
    names = re.findall(r"`((?:tests|docs)/[\w/]+\.\w+)`", PAGE.read_text(encoding="utf-8"))
    assert len(names) >= 6
    assert [name for name in names if not (PAGE.parents[1] / name).exists()] == []


def test_the_page_on_growth_has_the_table_of_the_benchmark():
    root = PAGE.parents[1]
    spec = importlib.util.spec_from_file_location("growth", root / "benchmarks" / "growth.py")
    growth = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(growth)
    rows = json.loads((root / "benchmarks" / "results" / "growth.json").read_text())["rows"]
    assert len(rows) >= 20
    assert growth.table(rows) in (root / "docs" / "growth.md").read_text(encoding="utf-8")

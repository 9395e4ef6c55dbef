"""Any sequence of steps, kills, resumptions, larger budgets and edited recipes: the end is that of an undisturbed run.

A state machine of Hypothesis: it invents sequences, and shortens those that fail. A kill comes at any call to the disk
(tests/disk.py); what has been written is kept, in part for the call at which it comes.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from disk import KINDS, FaultyDisk, Killed, Kind
from run.toys import Score, Walk, outcome, problem, same
from sartor.core.errors import StateError
from sartor.run import journal as journals
from sartor.run import lab, runner
from sartor.run.folder import RunFolder, read_json, write_json
from sartor.run.journal import FileJournal, read_trials
from sartor.run.runner import Limits, run

STEPS, ALL = 6, 12
"""Steps of two trials."""


def session(folder: Path, budget: int, recipe: dict[str, Any]) -> bool:
    """One command: go on with the run, as far as a budget of trials reaches; whether it has finished."""
    with RunFolder(folder, {**recipe, "limits": {"trials": budget}}) as place:
        if place.finished:
            return True
        p = problem()
        finished = run(
            Walk(p, 0, steps=STEPS), p, Score(), folder=folder / "search", seed=0, limits=Limits(trials=budget)
        )
        if finished:
            place.end_stage("search", {"finished": finished})
            write_json(
                folder / "result.json", {"trials": len(read_trials(FileJournal(folder / "search/journal.jsonl")))}
            )
        return finished


def result(folder: Path) -> list[Any]:
    return [*outcome(folder / "search"), read_json(folder / "result.json")]


class Runs(RuleBasedStateMachine):
    """One folder, and what may happen to it."""

    whole: list[Any]
    recipe = {"seed": 0, "space": {"name": "toy"}}

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.folder, self.budget, self.finished, self.known = self.place / "run", 0, False, 0

    def teardown(self) -> None:
        if not self.finished:
            assert session(self.folder, 10 * ALL, self.recipe)
        assert same(result(self.folder), self.whole)
        shutil.rmtree(self.place)

    @rule(more=st.integers(0, 5))
    def go_on(self, more: int) -> None:
        """With a larger budget, or the same."""
        self.budget += more
        self.finished = session(self.folder, self.budget, self.recipe)
        assert self.finished == (self.budget >= ALL)

    @precondition(lambda self: not self.finished)
    @rule(more=st.integers(0, 8), kind=st.sampled_from(KINDS), at=st.integers(1, 60), now=st.booleans())
    def kill(self, more: int, kind: Kind, at: int, now: bool) -> None:
        """At the n-th call of a kind, in a session that syncs at once or as it likes."""
        self.budget += more
        lags, lag = (runner.LAG, journals.LAG), 0.0 if now else 0.5
        runner.LAG = journals.LAG = lag
        try:
            with FaultyDisk(self.folder, kind, at, "killed"):
                self.finished = session(self.folder, self.budget, self.recipe)
        except Killed:
            self.finished = (self.folder / "result.json").exists()
        finally:
            runner.LAG, journals.LAG = lags

    @precondition(lambda self: (self.folder / "config.toml").exists())
    @rule(key=st.sampled_from(["seed", "space"]))
    def edit_the_recipe(self, key: str) -> None:
        """It is refused, by name, and nothing changes."""
        before = {p: p.read_bytes() for p in self.folder.rglob("*") if p.is_file() and p.name != ".lock"}
        with pytest.raises(StateError, match=rf"another config \(changed: {key}"):
            session(self.folder, self.budget, {**self.recipe, key: {"name": "other"} if key == "space" else 1})
        assert before == {p: p.read_bytes() for p in self.folder.rglob("*") if p.is_file() and p.name != ".lock"}

    @precondition(lambda self: (self.folder / "config.toml").exists())
    @rule()
    def open_it_twice(self) -> None:
        """The second is told who has it."""
        mine = {**self.recipe, "limits": {"trials": self.budget}}
        told = r"another process works in .* \(process \d+ on "
        with RunFolder(self.folder, mine), pytest.raises(StateError, match=told):
            session(self.folder, self.budget, self.recipe)

    @invariant()
    def no_trial_is_lost(self) -> None:
        """What a session has journaled is there for the next."""
        trials = read_trials(FileJournal(self.folder / "search" / "journal.jsonl"))
        assert len(trials) >= self.known
        self.known = len(trials)
        assert trials == self.whole[0][: self.known]


@pytest.fixture(autouse=True, scope="module")
def whole(tmp_path_factory):
    """The undisturbed run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
        patch.setattr(lab, "MAX_STARTS", 1000)  # three kills in one trial would make it a failed one, as they should
        assert session(folder, 10 * ALL, Runs.recipe)
        Runs.whole = result(folder)
        yield


TestRuns = Runs.TestCase
TestRuns.settings = settings(max_examples=25, stateful_step_count=8)


@pytest.mark.slow
class TestManyRuns(Runs.TestCase):  # type: ignore[misc, name-defined]
    settings = settings(max_examples=500, stateful_step_count=15)

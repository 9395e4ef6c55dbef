from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from run.toys import Draws, Score, Walk, largest_file, outcome, problem, same
from sartor.core import state
from sartor.core.errors import ConfigError, StateError
from sartor.run.journal import FileJournal, read_logs, read_trials
from sartor.run.runner import Limits, restore, run

CRASHES = 8
"""Searches, each killed three times."""
CRASH = Path(__file__).with_name("crash.py")


def walk(folder: Path, *, steps: int = 5, **settings: Any) -> bool:
    p = problem()
    return run(
        Walk(p, 0, steps=steps), p, settings.pop("evaluator", None) or Score(), folder=folder, seed=0, **settings
    )


class Stopped(BaseException):
    """Like Ctrl-C: not an error of the trial."""


def stop_at(call: int) -> Score:
    def before(calls: int) -> None:
        if calls == call:
            raise Stopped

    return Score(before)


def test_killed_at_random_lines_and_resumed_is_uninterrupted() -> None:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # syncs a thousand times: slow on a disk
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(CRASH.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": "1",
    }
    with TemporaryDirectory(dir=memory) as folder:
        command = [sys.executable, "-W", "ignore", str(CRASH), folder, str(CRASHES), "0"]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    result = json.loads(done.stdout)
    assert result["different"] == []
    assert result["kills"] >= CRASHES, result
    assert result["trials"] == 10


@pytest.mark.parametrize("call", [1, 2, 5, 10])
def test_stopped_in_any_trial_and_resumed_is_uninterrupted(tmp_path: Path, call: int) -> None:
    assert walk(tmp_path / "whole")
    with pytest.raises(Stopped):
        walk(tmp_path / "again", evaluator=stop_at(call))
    evaluator = Score()
    assert walk(tmp_path / "again", evaluator=evaluator)
    assert len(evaluator.calls) == 10 - (call - 1)  # nothing that was finished is evaluated again
    assert same(list(outcome(tmp_path / "whole")), list(outcome(tmp_path / "again")))


def test_a_larger_trial_limit_goes_on_exactly(tmp_path: Path) -> None:
    assert walk(tmp_path / "whole")
    for trials in (0, 3, 3, 4, 7):
        assert not walk(tmp_path / "parts", limits=Limits(trials=trials))
        assert len(read_trials(FileJournal(tmp_path / "parts" / "journal.jsonl"))) == trials
    assert walk(tmp_path / "parts")
    assert same(list(outcome(tmp_path / "whole")), list(outcome(tmp_path / "parts")))


def test_the_strategy_may_finish_with_the_last_allowed_trial(tmp_path: Path) -> None:
    p = problem()
    assert run(Draws(p, 0), p, Score(), folder=tmp_path, seed=0, limits=Limits(trials=9))


def test_no_time_left_makes_no_step_and_more_goes_on_exactly(tmp_path: Path) -> None:
    assert not walk(tmp_path / "parts", limits=Limits(hours=0))
    assert not (tmp_path / "parts" / "state.safetensors").exists()
    assert walk(tmp_path / "parts", limits=Limits(hours=1))
    assert walk(tmp_path / "whole")
    assert same(list(outcome(tmp_path / "whole")), list(outcome(tmp_path / "parts")))


def test_the_step_under_way_is_finished_when_time_is_up(tmp_path: Path) -> None:
    steps: list[int] = []
    slow = Score(lambda _: __import__("time").sleep(0.02))
    assert not walk(tmp_path, evaluator=slow, limits=Limits(hours=0.01 / 3600), on_step=steps.append)
    assert steps == [1]
    assert len(slow.calls) == 2


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    walk(tmp_path)
    before = (tmp_path / "journal.jsonl").read_bytes()
    evaluator = Score()
    assert walk(tmp_path, evaluator=evaluator)
    assert evaluator.calls == []
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_restore_loads_the_last_checkpoint_and_runs_nothing(tmp_path: Path) -> None:
    assert not restore(Walk(problem(), 0), tmp_path)
    assert not walk(tmp_path, limits=Limits(trials=7))
    before = (tmp_path / "journal.jsonl").read_bytes()
    strategy = Walk(problem(), 9)
    assert restore(strategy, tmp_path)
    assert strategy.done == 3
    assert same(strategy.state_dict(), state.load(tmp_path / "state.safetensors")["strategy"])
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_callbacks_hear_of_every_step_and_trial(tmp_path: Path) -> None:
    steps: list[int] = []
    trials: list[int] = []
    walk(tmp_path, on_step=steps.append, on_trial=lambda t: trials.append(t.index))
    assert steps == [1, 2, 3, 4, 5]
    assert trials == list(range(10))


def test_logs_carry_their_step_and_all_calls_of_a_step_are_kept(tmp_path: Path) -> None:
    walk(tmp_path)
    logs = read_logs(FileJournal(tmp_path / "journal.jsonl"))
    assert [log["step"] for log in logs] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert [sorted(log) for log in logs[:2]] == [["best", "done", "step"], ["average", "step"]]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_kill_between_checkpoint_and_journal_loses_and_doubles_no_log(tmp_path: Path, lost: int) -> None:
    walk(tmp_path)
    wanted = outcome(tmp_path)
    path = tmp_path / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert all(b'"log"' in line for line in lines[-2:])
    path.write_bytes(b"".join(lines[: len(lines) - lost]))
    walk(tmp_path)
    assert same(list(outcome(tmp_path)), list(wanted))


def test_without_its_checkpoint_a_run_is_replayed_from_the_journal(tmp_path: Path) -> None:
    walk(tmp_path)
    wanted = outcome(tmp_path)
    (tmp_path / "state.safetensors").unlink()
    evaluator = Score()
    assert walk(tmp_path, evaluator=evaluator)
    assert evaluator.calls == []
    assert same(list(outcome(tmp_path)), list(wanted))


def test_an_older_copy_of_the_checkpoint_goes_on_exactly(tmp_path: Path) -> None:
    copies: list[bytes] = []
    walk(tmp_path, on_step=lambda _: copies.append((tmp_path / "state.safetensors").read_bytes()))
    wanted = outcome(tmp_path)
    (tmp_path / "state.safetensors").write_bytes(copies[1])
    assert walk(tmp_path)
    assert same(list(outcome(tmp_path)), list(wanted))


def test_a_checkpoint_that_knows_more_than_the_journal_is_refused(tmp_path: Path) -> None:
    walk(tmp_path)
    (tmp_path / "journal.jsonl").unlink()
    with pytest.raises(StateError, match=r"knows 10 trials, .*journal\.jsonl only 0"):
        walk(tmp_path)


def test_a_checkpoint_of_another_strategy_is_refused(tmp_path: Path) -> None:
    walk(tmp_path)
    p = problem()
    with pytest.raises(StateError, match="state of Draws does not fit"):
        run(Draws(p, 0), p, Score(), folder=tmp_path, seed=0)


def test_a_torn_journal_line_costs_one_trial_at_most(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        walk(tmp_path / "again", evaluator=stop_at(4))
    path = tmp_path / "again" / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if b'"trial"' in line)
    path.write_bytes(b"".join(lines[:last]) + lines[last][:-7])
    evaluator = Score()
    walk(tmp_path / "again", evaluator=evaluator)
    walk(tmp_path / "whole")
    assert len(evaluator.calls) == 8
    assert same(list(outcome(tmp_path / "again")), list(outcome(tmp_path / "whole")))


@pytest.mark.parametrize("room", [40, 200, 700, 1500, 3000])
def test_a_full_disk_stops_the_search_and_space_lets_it_go_on_exactly(tmp_path: Path, room: int) -> None:
    walk(tmp_path / "whole")
    with largest_file(room), pytest.raises(StateError, match="cannot write"):
        walk(tmp_path / "again")
    assert not list((tmp_path / "again").glob("*.part"))
    assert (tmp_path / "again" / "journal.jsonl").read_bytes().endswith(b"\n")
    walk(tmp_path / "again")
    assert same(list(outcome(tmp_path / "again")), list(outcome(tmp_path / "whole")))


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path: Path) -> None:
    assert walk(tmp_path / "whole")
    size = (tmp_path / "whole" / "journal.jsonl").stat().st_size
    assert not walk(tmp_path, limits=Limits(trials=6))
    before = state.load(tmp_path / "state.safetensors")
    with largest_file(size + 10), pytest.raises(StateError, match=r"state\.safetensors"):
        walk(tmp_path)
    assert same(state.load(tmp_path / "state.safetensors"), before)
    assert walk(tmp_path)


@pytest.mark.parametrize("limits", [{"trials": -1}, {"hours": -0.5}, {"trial_seconds": 0.0}, {"hours": float("nan")}])
def test_impossible_limits_are_refused(limits: dict[str, float]) -> None:
    (name,) = limits
    with pytest.raises(ConfigError, match=f"limits.{name}"):
        Limits(**limits)  # type: ignore[arg-type]

"""Every call to the disk that a session makes, failing in every manner: the folder is old or new, and goes on."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from disk import DEADLY, KINDS, MANNERS, FaultyDisk, Killed, Kind, Manner
from run.toys import Score, Walk, outcome, problem, same
from sartor.core import state
from sartor.core.errors import StateError
from sartor.run.folder import RunFolder, read_config, read_json, write_json
from sartor.run.journal import FileJournal, read_trials
from sartor.run.ledger import Ledger
from sartor.run.runner import CHECKPOINT, run

CONFIG = {"seed": 0, "limits": {"trials": 100}}
CLEANING: tuple[Kind, ...] = ("truncate", "remove")
"""Of which there is need after a fault only."""
TWICE: tuple[Kind, ...] = ("write", "sync", "rename")
"""After whose failures there is cleaning up."""
LAGS = {"at once": 0.0, "soon": 60.0}


def session(folder: Path) -> None:
    """What a command does to its folder: config, ledger, search, stage, result."""
    with RunFolder(folder, CONFIG) as place:
        ledger = Ledger(place.journal)
        p = problem()
        with ledger.stage("search"):
            finished = run(Walk(p, 0, steps=3), p, Score(), folder=folder / "search", seed=0)
        if place.stage_result("search") is None:
            place.end_stage("search", {"finished": finished})
        trials = len(read_trials(FileJournal(folder / "search" / "journal.jsonl")))
        write_json(folder / "result.json", {"trials": trials, "search": place.stage_result("search")})


def result(folder: Path) -> list[Any]:
    return [*outcome(folder / "search"), read_json(folder / "result.json"), read_config(folder / "config.toml")]


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch):
    """It is optional, and writes when it likes, from a thread of its own; test_scalars.py has its faults."""
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)


@pytest.fixture(params=LAGS)
def lag(request, monkeypatch) -> str:
    monkeypatch.setattr("sartor.run.runner.LAG", LAGS[request.param])
    monkeypatch.setattr("sartor.run.journal.LAG", LAGS[request.param])
    return str(request.param)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, list[Any]]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    session(folder)
    return folder, result(folder)


def calls(folder: Path) -> Counter[str]:
    with FaultyDisk(folder) as disk:
        session(folder)
    return disk.counts


def assert_old_or_new(folder: Path, whole: Path) -> None:
    """Nothing is half there: what can be read is what was there before, or what would have come."""
    if (folder / "config.toml").exists():
        assert read_config(folder / "config.toml") == read_config(whole / "config.toml")
    journal, checkpoint = folder / "search" / "journal.jsonl", folder / "search" / CHECKPOINT
    trials = read_trials(FileJournal(journal))
    assert trials == read_trials(FileJournal(whole / "search" / "journal.jsonl"))[: len(trials)]
    if checkpoint.exists():
        assert state.load(checkpoint)["trials"] <= len(trials)
    if (folder / "result.json").exists():
        assert read_json(folder / "result.json") == read_json(whole / "result.json")


def strike(folder: Path, kind: Kind, at: int, manner: Manner, then: tuple[Kind, ...] = ()) -> bool:
    """One session on a disk that fails; whether it noticed."""
    with FaultyDisk(folder, kind, at, manner, then) as disk:
        try:
            session(folder)
        except (StateError, Killed) as error:
            noticed: BaseException = error
        else:
            noticed = StateError("")
    assert disk.struck
    assert isinstance(noticed, Killed) == (manner in DEADLY)
    message = str(noticed)
    assert "\n" not in message
    assert "cannot" in message or not message
    return bool(message) or manner in DEADLY


def test_every_kind_of_call_is_made(tmp_path: Path, lag: str) -> None:
    counts = calls(tmp_path / "run")
    assert set(counts) == set(KINDS) - set(CLEANING)
    assert counts["write"] > 20
    assert (counts["sync"] > 30) == (lag == "at once")


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in CLEANING])
def test_a_fault_anywhere_leaves_old_or_new_and_goes_on_exactly(
    tmp_path: Path, whole: tuple[Path, list[Any]], lag: str, kind: Kind, manner: Manner
) -> None:
    total, noticed = calls(tmp_path / "count")[kind], 0
    for at in range(1, total + 1):
        folder = tmp_path / str(at)
        noticed += strike(folder, kind, at, manner)
        assert_old_or_new(folder, whole[0])
        session(folder)
        assert same(result(folder), whole[1]), (kind, at, manner)
        assert not list(folder.rglob("*.part"))
        shutil.rmtree(folder)
    assert noticed >= total / 2, "faults that nobody notices are none"


@pytest.mark.parametrize("kind", TWICE)
def test_a_fault_whose_cleaning_up_fails_too_leaves_old_or_new(
    tmp_path: Path, whole: tuple[Path, list[Any]], lag: str, kind: Kind
) -> None:
    for at in range(1, calls(tmp_path / "count")[kind] + 1):
        folder = tmp_path / str(at)
        strike(folder, kind, at, "once", CLEANING)
        assert_old_or_new(folder, whole[0])
        session(folder)
        assert same(result(folder), whole[1]), (kind, at)


def test_a_folder_without_the_right_to_write_is_one_line(tmp_path: Path) -> None:
    with FaultyDisk(tmp_path, "open", 1, "readonly"), pytest.raises(StateError, match="cannot write to"):
        session(tmp_path / "run")

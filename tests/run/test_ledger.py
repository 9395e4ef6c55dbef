from __future__ import annotations

import time
from pathlib import Path

import pytest

from sartor.run.journal import FileJournal, MemoryJournal
from sartor.run.ledger import Ledger, process_age
from sartor.run.result import Spent


def seconds(summary: Spent) -> dict[str, float]:
    return {row.name: row.seconds for row in summary.stages}


def agree(summary: Spent) -> bool:
    return bool(summary.total_seconds == pytest.approx(summary.wall_seconds, rel=0.02))


def test_time_goes_to_the_innermost_stage() -> None:
    ledger = Ledger(MemoryJournal())
    with ledger.stage("search"):
        time.sleep(0.1)
        with ledger.stage("train"):
            time.sleep(0.3)
    summary = ledger.summary()
    booked = seconds(summary)
    assert booked["train"] >= 0.3
    assert 0.1 <= booked["search"] < booked["train"] + 0.1
    assert agree(summary)


def test_time_outside_any_stage_is_other() -> None:
    ledger = Ledger(MemoryJournal())
    time.sleep(0.2)
    with ledger.stage("a"):
        pass
    assert seconds(ledger.summary())["other"] >= 0.2


def test_the_stages_of_all_sessions_add_up_to_their_wall_time(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    clock = 0.0
    for session in range(3):
        begin = time.monotonic()
        ledger = Ledger(FileJournal(path), age=0.5)
        with ledger.stage("search"):
            time.sleep(0.1)
        if session < 2:
            ledger.book()
        summary = ledger.summary()
        clock += time.monotonic() - begin + 0.5
        time.sleep(0.2)  # between two sessions no time is booked
        assert agree(summary)
        assert summary.wall_seconds == pytest.approx(clock, rel=0.02)
    assert seconds(summary)["start"] == pytest.approx(1.5)
    assert seconds(summary)["search"] >= 0.3


def test_after_a_kill_only_the_time_since_the_last_booking_is_lost(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "journal.jsonl")
    killed = Ledger(journal)
    stage = killed.stage("search")
    stage.__enter__()
    time.sleep(0.2)
    killed.book()
    time.sleep(0.2)  # lost: neither booked nor part of the wall time
    summary = Ledger(journal).summary()
    assert 0.2 <= summary.total_seconds < 0.39
    assert agree(summary)


def test_many_small_units_of_work_are_few_records(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = MemoryJournal()
    ledger = Ledger(journal)
    for _ in range(50):
        ledger.count(trained=1)
        ledger.tick()
    assert len(journal.records) == 1
    monkeypatch.setattr("sartor.run.ledger.EVERY", 0.0)
    ledger.tick()
    assert [r["trained"] for r in journal.records] == [0, 50]


def test_a_stage_that_raises_is_booked_and_closed() -> None:
    ledger = Ledger(MemoryJournal())

    def work() -> None:
        time.sleep(0.05)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), ledger.stage("a"):
        work()
    time.sleep(0.05)
    booked = seconds(ledger.summary())
    assert booked["a"] >= 0.05
    assert booked["other"] >= 0.05


def test_networks_are_counted_in_the_open_stage_and_over_sessions() -> None:
    journal = MemoryJournal()
    for _ in range(2):
        ledger = Ledger(journal)
        with ledger.stage("latency"):
            ledger.count(measured=3)
            with ledger.stage("train"):
                ledger.count(trained=1)
                ledger.count(trained=1, measured=1)
    rows = {r.name: (r.networks_trained, r.networks_measured) for r in ledger.summary().stages}
    assert (rows["latency"], rows["train"]) == ((0, 6), (4, 2))
    assert sum(t for t, _ in rows.values()) == 4
    assert sum(m for _, m in rows.values()) == 8


def test_stages_stand_in_order_of_appearance() -> None:
    ledger = Ledger(MemoryJournal())
    for name in ("z", "a", "z"):
        with ledger.stage(name):
            pass
    assert [row.name for row in ledger.summary().stages] == ["start", "other", "z", "a"]


def test_other_records_of_the_journal_are_left_alone() -> None:
    journal = MemoryJournal()
    journal.append({"kind": "trial", "seconds": 100})
    assert Ledger(journal).summary().total_seconds < 50


def test_the_age_of_the_process_grows_with_the_clock() -> None:
    if process_age() == 0:
        pytest.skip("this system does not tell when a process started")
    begin, age = time.monotonic(), process_age()
    time.sleep(0.2)
    assert process_age() - age == pytest.approx(time.monotonic() - begin, abs=0.1)


def test_what_a_record_carries_is_booked_with_it(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "journal.jsonl")
    ledger = Ledger(journal)
    with ledger.stage("training"):
        ledger.count(trained=1)
        journal.append({"kind": "stage", "name": "training.some", "result": {}, "spent": ledger.due()})
    again = Ledger(journal)  # the next session, had this one been killed right there
    stages = {row.name: row.networks_trained for row in again.summary().stages}
    assert stages["training"] == 1
    assert agree(again.summary())

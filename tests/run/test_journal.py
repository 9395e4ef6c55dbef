from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run.toys import largest_file
from sartor.core.errors import StateError
from sartor.core.records import Trial
from sartor.run import journal as journals
from sartor.run.journal import FileJournal, MemoryJournal, read_logs, read_trials

RECORDS = [
    {"kind": "trial", "index": 0, "arch": [0, 1], "fidelity": 1.0, "metrics": {"accuracy": 0.1 + 0.2}, "error": None},
    {"kind": "log", "step": 1, "loss": 1e-30},
    {"kind": "stage", "name": "größe", "result": {"nested": [1, [2, None]]}},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def filled(path: Path) -> FileJournal:
    journal = FileJournal(path)
    for record in RECORDS:
        journal.append(record)
    return journal


def test_both_journals_return_what_was_appended(path: Path) -> None:
    memory = MemoryJournal()
    for record in RECORDS:
        memory.append(record)
    assert list(filled(path).read()) == list(memory.read()) == RECORDS
    assert list(FileJournal(path).read()) == RECORDS


def test_a_journal_that_does_not_exist_is_empty(path: Path) -> None:
    assert list(FileJournal(path).read()) == []
    assert not path.exists()


def test_memory_returns_the_types_that_json_returns() -> None:
    memory = MemoryJournal()
    record: dict[str, Any] = {"kind": "x", "arch": (1, 2)}
    memory.append(record)
    record["arch"] = None
    assert list(memory.read()) == [{"kind": "x", "arch": [1, 2]}]


def test_cut_at_every_byte_the_whole_lines_stand_and_the_next_append_fits(path: Path) -> None:
    filled(path)
    data = path.read_bytes()
    for size in sorted({*range(0, len(data) + 1, 7), len(data) - 1, len(data)}):
        path.write_bytes(data[:size])
        whole = data[:size].count(b"\n")
        journal = FileJournal(path)
        assert list(journal.read()) == RECORDS[:whole]
        journal.append({"kind": "next"})
        assert list(FileJournal(path).read()) == [*RECORDS[:whole], {"kind": "next"}]


def test_opening_and_reading_change_nothing_even_if_the_last_line_is_half_written(path: Path) -> None:
    writer = filled(path)
    data = path.read_bytes()
    path.write_bytes(data + b'{"kind": "tri')  # another process is writing
    assert list(FileJournal(path).read()) == RECORDS
    assert path.read_bytes() == data + b'{"kind": "tri'
    assert list(writer.read()) == RECORDS


@pytest.mark.parametrize("broken", [b"{]\n", b"\n", b"\xff\xfe\n", b"[1]\n", b'{"no": "kind"}\n', b"\0\0\0\n"])
def test_a_broken_line_in_the_middle_is_named(path: Path, broken: bytes) -> None:
    filled(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + broken + lines[1])
    with pytest.raises(StateError, match=r"journal\.jsonl:2 is not"):
        list(FileJournal(path).read())


def test_a_full_disk_leaves_the_journal_whole(path: Path) -> None:
    journal = filled(path)
    data = path.read_bytes()
    for room in (0, 1, 20):
        with (
            largest_file(len(data) + room),
            pytest.raises(StateError, match=r"cannot write .*journal\.jsonl.*free some space"),
        ):
            journal.append({"kind": "large", "text": "x" * 100})
        assert path.read_bytes() == data
    journal.append({"kind": "next"})
    assert list(journal.read()) == [*RECORDS, {"kind": "next"}]


def test_a_journal_that_cannot_be_opened_is_a_state_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot write"):
        FileJournal(tmp_path / "missing" / "journal.jsonl").append({"kind": "x"})


def test_two_processes_that_append_in_turn_see_each_other(path: Path) -> None:
    one, two = FileJournal(path), FileJournal(path)
    one.append({"kind": "a"})
    two.append({"kind": "b"})
    one.append({"kind": "c"})
    assert [r["kind"] for r in one.read()] == ["a", "b", "c"]


def test_each_append_is_on_disk_when_it_returns(path: Path) -> None:
    FileJournal(path).append({"kind": "a"})
    handle = os.open(path, os.O_RDONLY)
    try:
        assert json.loads(os.read(handle, 100)) == {"kind": "a"}
    finally:
        os.close(handle)


def trial(index: int, arch: tuple[int, ...]) -> dict[str, Any]:
    return {"kind": "trial", "index": index, "arch": arch, "fidelity": 1.0, "metrics": {}, "error": None}


@given(st.lists(st.one_of(st.none(), st.integers(0, 6)), max_size=30))
def test_rewinds_drop_the_trials_from_their_index_on(actions: list[int | None]) -> None:
    """None appends a trial; a number rewinds to it (as the lab does: never beyond the end)."""
    journal, wanted = MemoryJournal(), []
    for i, action in enumerate(actions):
        if action is None:
            journal.append(trial(len(wanted), (i,)))
            wanted.append((len(wanted), (i,)))
        else:
            to = min(action, len(wanted))
            journal.append({"kind": "rewind", "to": to})
            wanted = wanted[:to]
    assert [(t.index, t.arch) for t in read_trials(journal)] == wanted


def test_trials_come_back_as_they_were(path: Path) -> None:
    assert read_trials(filled(path)) == [Trial(0, (0, 1), 1.0, {"accuracy": 0.1 + 0.2})]
    assert isinstance(read_trials(FileJournal(path))[0].arch, tuple)


def test_logs_come_back_with_their_step_and_rewound(path: Path) -> None:
    journal = MemoryJournal()
    for step in (1, 1, 2, 3):
        journal.append({"kind": "log", "step": step, "loss": 0.5})
    journal.append({"kind": "rewind_logs", "to": 1})
    journal.append({"kind": "log", "step": 2, "loss": 0.25})
    assert read_logs(journal) == [
        {"step": 1, "loss": 0.5},
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 0.25},
    ]


def test_several_records_are_written_at_once_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = FileJournal(tmp_path / "j.jsonl")
    journal.append({"kind": "a"})
    written: list[bytes] = []
    real = journals._write_all
    monkeypatch.setattr(journals, "_write_all", lambda file, data: (written.append(data), real(file, data)))
    journal.extend([{"kind": "b"}, {"kind": "c"}])
    assert written == [b'{"kind": "b"}\n{"kind": "c"}\n']
    assert [r["kind"] for r in journal.read()] == ["a", "b", "c"]
    memory = MemoryJournal()
    memory.extend([{"kind": "b"}, {"kind": "c"}])
    assert [r["kind"] for r in memory.read()] == ["b", "c"]

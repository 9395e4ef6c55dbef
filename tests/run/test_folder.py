from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import tomllib
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from run.toys import largest_file
from sartor.core.errors import StateError
from sartor.run.folder import (
    CHECKPOINT,
    RunFolder,
    changed_keys,
    plain,
    read_config,
    read_json,
    write_config,
    write_json,
)

CONFIG = {"seed": 0, "space": {"name": "tiny", "widths": (4, 8)}, "limits": {"trials": 5}, "strategy": {"name": "aows"}}


def test_a_new_folder_holds_its_config(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a" / "b", CONFIG) as folder:
        assert tomllib.loads((folder.path / "config.toml").read_text()) == plain(CONFIG)
        assert not folder.finished
        assert folder.artifacts.is_dir()
        assert list(folder.journal.read()) == []


def test_the_same_config_goes_on(tmp_path: Path) -> None:
    with RunFolder(tmp_path, CONFIG) as folder:
        folder.journal.append({"kind": "x"})
    with RunFolder(tmp_path, CONFIG) as folder:
        assert list(folder.journal.read()) == [{"kind": "x"}]


def test_limits_may_change(tmp_path: Path) -> None:
    RunFolder(tmp_path, CONFIG).close()
    RunFolder(tmp_path, {**CONFIG, "limits": {"trials": 50}}).close()
    assert tomllib.loads((tmp_path / "config.toml").read_text())["limits"] == {"trials": 50}
    RunFolder(tmp_path, {k: v for k, v in CONFIG.items() if k != "limits"}).close()


def test_another_config_is_refused_and_the_changed_keys_named(tmp_path: Path) -> None:
    RunFolder(tmp_path, CONFIG).close()
    before = (tmp_path / "config.toml").read_bytes()
    other = {**CONFIG, "seed": 1, "space": {"name": "tiny", "widths": (4, 9)}, "task": {"name": "digits"}}
    with pytest.raises(StateError, match=r"another config \(changed: seed, space\.widths, task\.name\)"):
        RunFolder(tmp_path, other)
    assert (tmp_path / "config.toml").read_bytes() == before
    RunFolder(tmp_path, CONFIG).close()  # the refusal let go of the lock


def test_a_folder_that_is_no_run_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StateError, match=r"not empty and not a run folder \(it has thesis\.tex\)"):
        RunFolder(tmp_path, CONFIG)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_session_killed_while_it_wrote_its_first_config_starts_again(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / "config.toml.part").write_text("seed = ")
    RunFolder(tmp_path, CONFIG).close()
    assert not (tmp_path / "config.toml.part").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StateError, match=r"cannot write to .*file.*name another folder"):
        RunFolder(tmp_path / "file", CONFIG)


def test_a_config_that_somebody_broke_is_named(tmp_path: Path) -> None:
    RunFolder(tmp_path, CONFIG).close()
    (tmp_path / "config.toml").write_text("seed = = 1")
    with pytest.raises(StateError, match=r"config\.toml is not TOML"):
        RunFolder(tmp_path, CONFIG)


def _hold(path: str, ready: multiprocessing.synchronize.Event) -> None:
    with RunFolder(Path(path), CONFIG):
        ready.set()
        signal.pause()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_two_processes_cannot_have_one_folder_and_a_killed_one_lets_it_go(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(str(tmp_path), ready))
    holder.start()
    try:
        assert ready.wait(60)
        who = rf"another process works in .* \(process {holder.pid} on {socket.gethostname()}, since 20\d\d-.*\); wait"
        with pytest.raises(StateError, match=who):
            RunFolder(tmp_path, CONFIG)
    finally:
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGKILL)
        holder.join()
    RunFolder(tmp_path, CONFIG).close()


def test_one_process_cannot_open_it_twice_either(tmp_path: Path) -> None:
    with RunFolder(tmp_path, CONFIG), pytest.raises(StateError, match="another process works in"):
        RunFolder(tmp_path, CONFIG)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_worker_that_outlives_the_session_does_not_hold_the_folder(tmp_path: Path) -> None:
    with RunFolder(tmp_path, CONFIG):
        pid = os.fork()
        if pid == 0:
            signal.pause()
    try:
        RunFolder(tmp_path, CONFIG).close()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_stages_are_done_once(tmp_path: Path) -> None:
    with RunFolder(tmp_path, CONFIG) as folder:
        assert folder.stage_result("reference") is None
        folder.end_stage("reference", {"latency_ms": 1.5})
        folder.end_stage("search", [])
        assert folder.stage_result("reference") == {"latency_ms": 1.5}
    with RunFolder(tmp_path, CONFIG) as folder:
        assert folder.stage_result("reference") == {"latency_ms": 1.5}
        assert folder.stage_result("search") == []
        assert folder.stage_result("verify") is None


def test_a_stage_stands_with_its_files(tmp_path: Path) -> None:
    with RunFolder(tmp_path, CONFIG) as folder:
        (folder.artifacts / "old.bin").write_bytes(b"before")
        folder.begin_stage("made")
        (folder.artifacts / "sub").mkdir()
        for name in ("a.bin", "sub/b.bin"):
            (folder.artifacts / name).write_bytes(name.encode())
        (folder.artifacts / f"net{CHECKPOINT}").write_bytes(b"goes once the result is in the journal")
        folder.end_stage("made", 1)
    (tmp_path / "artifacts" / f"net{CHECKPOINT}").unlink()
    (tmp_path / "artifacts" / "old.bin").write_bytes(b"no stage has written it")
    with RunFolder(tmp_path, CONFIG) as folder:
        assert folder.stage_result("made") == 1
    for name in ("a.bin", "sub/b.bin"):
        path = tmp_path / "artifacts" / name
        path.write_bytes(b"another")
        with RunFolder(tmp_path, CONFIG) as folder, pytest.raises(StateError, match=f"{name} is not what the run in"):
            folder.stage_result("made")
        path.unlink()
        with RunFolder(tmp_path, CONFIG) as folder, pytest.raises(StateError, match=f"{name} is missing; restore it"):
            folder.stage_result("made")
        path.write_bytes(name.encode())


def test_a_journal_of_another_run_is_refused(tmp_path: Path) -> None:
    other = {**CONFIG, "title": "another"}
    for place, config in (("mine", CONFIG), ("other", other)):
        with RunFolder(tmp_path / place, config) as folder:
            folder.end_stage("made", 1)
    with RunFolder(tmp_path / "mine", {**CONFIG, "limits": {"trials": 7}}) as folder:  # a larger limit goes on
        assert folder.stage_result("made") == 1
    shutil.copy(tmp_path / "other" / "journal.jsonl", tmp_path / "mine" / "journal.jsonl")
    with RunFolder(tmp_path / "mine", CONFIG) as folder, pytest.raises(StateError, match="is of another run; restore"):
        folder.stage_result("made")


def test_a_full_disk_leaves_config_and_result_whole(tmp_path: Path) -> None:
    write_config(tmp_path / "config.toml", CONFIG)
    write_json(tmp_path / "result.json", [1])
    with largest_file(10):
        with pytest.raises(StateError, match="cannot write"):
            write_config(tmp_path / "config.toml", {"title": "x" * 100})
        with pytest.raises(StateError, match="cannot write"):
            write_json(tmp_path / "result.json", ["x" * 100])
    assert tomllib.loads((tmp_path / "config.toml").read_text()) == plain(CONFIG)
    assert read_json(tmp_path / "result.json") == [1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.toml", "result.json"]


def test_finished_once_the_result_is_there(tmp_path: Path) -> None:
    with RunFolder(tmp_path, CONFIG) as folder:
        write_json(folder.path / "result.json", {"title": "x"})
        assert folder.finished


@pytest.mark.parametrize(("text", "message"), [(None, "does not exist"), (b"{", "not JSON"), (b"\xff", "not JSON")])
def test_results_that_cannot_be_read_say_why(tmp_path: Path, text: bytes | None, message: str) -> None:
    if text is not None:
        (tmp_path / "result.json").write_bytes(text)
    with pytest.raises(StateError, match=rf"result\.json.*{message}"):
        read_json(tmp_path / "result.json")


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ({}, {}, []),
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a"]),
        ({"a": 1}, {}, ["a"]),
        ({}, {"a": {"b": 1, "c": 2}}, ["a.b", "a.c"]),
        ({"a": {"b": 1, "c": {"d": 1}}}, {"a": {"b": 1, "c": {"d": 2}}}, ["a.c.d"]),
        ({"a": 1}, {"a": {"b": 1}}, ["a"]),
        ({"a": 1}, {"a": {}}, ["a"]),
        ({"a": {}}, {}, []),
    ],
)
def test_changed_keys_are_dotted_names(old: dict, new: dict, changed: list[str]) -> None:
    assert changed_keys(old, new) == changed
    assert changed_keys(new, old) == changed


values = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.tuples(inner, inner), st.dictionaries(st.text(), inner)),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), values))
@settings(max_examples=25)
def test_any_config_survives_the_round_trip(config: dict) -> None:
    assert tomllib.loads(tomli_w.dumps(plain(config))) == plain(config)


def test_what_toml_cannot_hold_is_made_plain() -> None:
    assert plain({"a": None, "b": Path("x"), "c": ((1, 2), None), 3: {"d": None}}) == {
        "b": "x",
        "c": [[1, 2], "None"],
        "3": {},
    }


def test_who_was_sent_for_reads_a_folder_that_is_open_and_writes_nothing(tmp_path: Path) -> None:
    with RunFolder(tmp_path, CONFIG) as folder:
        folder.begin_stage("a")
        folder.end_stage("a", {"x": 1})
        before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
        looking = RunFolder(tmp_path, CONFIG, own=False)
        assert looking.stage_result("a") == {"x": 1}
        looking.close()
        assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
        with pytest.raises(StateError, match="another process works in"):
            RunFolder(tmp_path, CONFIG)


def test_other_workers_are_no_other_run(tmp_path: Path) -> None:
    with RunFolder(tmp_path, CONFIG):
        pass
    with RunFolder(tmp_path, {**CONFIG, "workers": {"name": "processes", "count": 2}}) as folder:
        assert read_config(folder.path / "config.toml")["workers"]["count"] == 2

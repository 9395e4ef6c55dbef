from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from report.fixture import outdone, store, synthetic
from sartor.core import files
from sartor.core.errors import StateError
from sartor.core.records import Choice, Estimate, Trial
from sartor.run.journal import FileJournal
from sartor.run.result import (
    Found,
    Look,
    Moment,
    Paid,
    Result,
    Search,
    Searched,
    Spent,
    Stage,
    Trace,
    read,
    read_result,
    read_searched,
    read_trace,
    write,
)

RESULT, TRACE = synthetic(budgets=2)
POINT = RESULT.points[0]
SEARCHED = Searched(
    found=(
        Found({"macs": 5e6}, (0, 2), "", {"a": 4, "b": True}, ("a",), {"macs": 4.9e6}),
        Found({"macs": 1.0}, None, "no"),
    ),
    search=Search(
        "ows", {"epochs": 3}, 12, 1, (Choice("a", (4, 8)), Choice("b", (True, 0.5, "x"))), (), (Paid(1.0, 9.0),)
    ),
    spent=Spent((Stage("search", 3.5, 1, 0),), 3.5, 3.6),
    environment={"seed": 3, "data": {"fingerprint": "5f"}},
)


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    store(tmp_path, RESULT, TRACE)
    assert read_result(tmp_path) == RESULT
    assert read(tmp_path) == (RESULT, TRACE)
    write(tmp_path, read_result(tmp_path))
    assert read_result(tmp_path) == RESULT
    assert json.loads((tmp_path / "result.json").read_text())["version"] == 2


def test_a_search_alone_comes_back_as_it_was(tmp_path: Path) -> None:
    write(tmp_path, SEARCHED)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["journal.jsonl", "search.json"]
    back = read_searched(tmp_path)
    assert back == SEARCHED
    assert [repr(o) for o in back.search.choices[1].options] == ["True", "0.5", "'x'"]


@pytest.mark.parametrize(("name", "reader"), [("result.json", read_result), ("search.json", read_searched)])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"curve": [], "search": {}}', r"was written by sartor 0\.1 \(schema 1, this is 2\); its network files work"),
        ('{"version": 3}', r"was written by another version of sartor \(schema 3, this is 2\)"),
        ("{", "is not JSON"),
        ("[]", "must hold a JSON object, not a list"),
        ('{"version": 2}', "is not as it should be .field required.; restore the file"),
    ],
)
def test_what_is_no_result_of_this_version_is_one_clear_error(tmp_path: Path, name, reader, text, words) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(StateError, match=words) as error:
        reader(tmp_path)
    assert str(error.value).startswith(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_a_run_that_is_not_finished_says_so(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"result\.json does not exist; finish the run first"):
        read(tmp_path)


def test_the_winner_is_the_one_that_is_delivered() -> None:
    assert (POINT.winner, POINT.rival) == (POINT.searched, POINT.uniform)
    other = outdone(RESULT).points[0]
    assert (other.winner, other.rival) == (other.uniform, other.searched)
    alone = replace(POINT, uniform=None)
    assert (alone.winner, alone.rival) == (alone.searched, None)


def looks(*measured: float) -> tuple[Look, ...]:
    """Looks at the networks for ever lower limits, the first one for that of the point; half-widths of 0.01 ms."""
    limits = (0.96, 0.93, 0.90, 0.87)
    return tuple(
        Look((i,), limit, limit, Estimate(ms, ms - 0.01, ms + 0.01))
        for i, (limit, ms) in enumerate(zip(limits, measured, strict=False))
    )


@pytest.mark.parametrize(
    ("seen", "tightened"),
    [
        ((), 0),
        ((0.94,), 0),
        ((0.955,), 0),  # over within its interval, but nothing has followed
        ((0.955, 0.92), 1),
        ((0.98, 0.97, 0.90), 2),
        ((0.94, 0.92), 0),  # the first choice was inside: what follows has other reasons
    ],
)
def test_lower_limits_are_those_after_a_first_choice_over_the_budget(seen, tightened) -> None:
    point = replace(POINT, looks=looks(*seen))
    assert point.tightened == point.looks[1 : 1 + tightened]
    assert replace(point, budget={"macs": 5e6}).tightened == ()


def test_a_look_at_the_same_limit_is_not_a_lower_one() -> None:
    first, second = looks(0.98, 0.92)
    again = replace(second, limit=0.96)
    assert replace(POINT, looks=(first, again, second)).tightened == (second,)


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [
        (("PASS", "PASS"), "PASS"),
        (("PASS", "UNSURE"), "UNSURE"),
        (("UNSURE", "PASS"), "UNSURE"),
        (("FAIL", "UNSURE"), "FAIL"),
        (("UNSURE", "FAIL"), "FAIL"),
    ],
)
def test_the_verdict_is_the_worst_of_all_points(verdicts, worst) -> None:
    points = tuple(replace(p, verdict=v) for p, v in zip(RESULT.points, verdicts, strict=True))
    assert replace(RESULT, points=points).verdict == worst


def test_networks_have_their_roles() -> None:
    first, second = RESULT.points
    result = replace(RESULT, points=(first, replace(second, uniform=None)))
    assert list(result.networks) == ["reference", "searched_0", "uniform_0", "searched_1"]
    assert result.networks["searched_1"] is second.searched
    assert result.networks["uniform_0"] is first.uniform


def test_the_cost_is_the_first_that_is_bounded_and_costs_have_intervals() -> None:
    assert RESULT.cost == "latency_ms"
    assert synthetic("macs")[0].cost == "macs"
    assert RESULT.metric.name == "accuracy"
    entry = RESULT.reference
    assert entry.cost("latency_ms") == entry.latency_ms
    assert entry.cost("macs") == Estimate(float(entry.macs), float(entry.macs), float(entry.macs))


def trial(index: int, arch: tuple[int, ...], **changes: object) -> dict[str, object]:
    fields = {"kind": "trial", "index": index, "arch": list(arch), "fidelity": 1.0, "metrics": {"macs": 9.0}}
    return {**fields, "error": None, "parent": None, **changes}


def test_a_trace_has_what_stands_after_rewinds(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "journal.jsonl")
    for record in (
        {"kind": "log", "step": 1, "epoch": 1, "loss": 2.0},
        trial(0, (0, 1)),
        trial(1, (5, 5)),
        {"kind": "log", "step": 2, "epoch": 2, "loss": 9.0},
        {"kind": "rewind", "to": 1},
        {"kind": "rewind_logs", "to": 1},
        {"kind": "log", "step": 2, "epoch": 2, "loss": 1.5},
        trial(1, (2, 2), error="DivergedError", parent=0),
    ):
        journal.append(record)
    trace = read_trace(tmp_path)
    metrics = {"macs": 9.0}
    assert trace.trials == (Trial(0, (0, 1), 1.0, metrics), Trial(1, (2, 2), 1.0, metrics, "DivergedError", 0))
    assert [log["loss"] for log in trace.logs] == [2.0, 1.5]
    assert trace.narrowing == ()


def test_a_search_that_has_not_begun_has_an_empty_trace(tmp_path: Path) -> None:
    assert read_trace(tmp_path / "search") == Trace()


def test_the_narrowing_is_what_was_written_along_the_search_or_else_its_end(tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    journal = FileJournal(tmp_path / "journal.jsonl")
    for epoch in (1, 2, 7):
        journal.append({"kind": "log", "step": epoch, "epoch": epoch, "loss": 1.0})
    journal.append({"kind": "log", "step": 8, "reward": 0.5})
    (artifacts / "preferences.json").write_text(json.dumps({"probabilities": [[0.25, 0.75], [1.0]], "more": 1}))
    assert read_trace(tmp_path).narrowing == (Moment(7, ((0.25, 0.75), (1.0,))),)
    rows = [{"epoch": e, "probabilities": [[0.5, 0.5], [1.0]]} for e in (2, 4)]
    (artifacts / "narrowing.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert [m.epoch for m in read_trace(tmp_path).narrowing] == [2, 4]
    (artifacts / "narrowing.jsonl").write_text('{"epoch": 1, "probabilities": [["x"]]}\n')
    with pytest.raises(StateError, match=r"artifacts: probabilities\[0\]\[0\] is not as it should be"):
        read_trace(tmp_path)


def test_a_result_needs_nothing_of_what_has_defaults() -> None:
    bare = Result("t", "digits", RESULT.metrics, RESULT.reference, RESULT.points[:1], RESULT.search)
    assert (bare.latency_model, bare.spent, bare.environment) == (None, Spent(), {})


@pytest.mark.parametrize("kept", [True, False])
def test_a_result_that_is_not_what_the_run_has_written_is_refused(tmp_path: Path, kept: bool) -> None:
    """A run of before has written no digest: it is read as it is."""
    write(tmp_path, SEARCHED)
    path = tmp_path / "search.json"
    path.write_text(path.read_text() + " ")
    if not kept:
        (tmp_path / "journal.jsonl").unlink()
        assert read_searched(tmp_path) == SEARCHED
        return
    with pytest.raises(StateError, match=r"search\.json is not what the run in this folder has written; restore it"):
        read_searched(tmp_path)


def test_files_that_are_not_as_delivered_are_found_and_the_first_one_named(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    result = replace(RESULT, files={name: files.sha256(tmp_path / name) for name in ("a", "b", "c")})
    assert result.changed(tmp_path) == {}
    result.check(tmp_path)
    (tmp_path / "b").write_text("other")
    (tmp_path / "c").unlink()
    found = result.changed(tmp_path)
    assert list(found) == ["b", "c"]
    assert found["c"] == "is missing"
    with pytest.raises(StateError, match=r"b has SHA-256 [0-9a-f]{16}\.\.\., it was .* \(and 1 more\); restore it"):
        result.check(tmp_path)
    result.check(tmp_path, ["a", "unknown"])
    with pytest.raises(StateError, match="c is missing; restore it"):
        result.check(tmp_path, ["c"])

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from sartor.core.errors import StateError
from sartor.core.records import Estimate
from sartor.jobs.fit.assemble import assemble
from sartor.jobs.fit.stage import Chosen, Job
from sartor.run.folder import RunFolder
from sartor.run.journal import FileJournal
from sartor.run.ledger import Ledger
from sartor.run.progress import Silent
from small import settings


@dataclass(frozen=True)
class Found:
    value: int
    arch: tuple[int, ...] = (1, 2)


@pytest.fixture
def job(tmp_path):
    config = settings(training={"epochs": 1, "lr": 0.1})
    with RunFolder(tmp_path / "run", config) as folder:
        yield Job(assemble(config), folder, Ledger(folder.journal), Silent())


def test_a_stage_that_has_ended_is_done_and_booked(job):
    assert job.done("a.b", Found) is None
    with job.stage("a.b", "A"):
        job.ledger.count(trained=2)
        assert job.end("a.b", Found(3)) == Found(3)
    assert job.done("a.b", Found) == Found(3)
    assert job.done("c", Found) is None
    stages = {s.name: s.networks_trained for s in job.ledger.summary().stages}
    assert stages["a"] == 2
    (record,) = (r for r in job.folder.journal.read() if r["kind"] == "stage")
    assert record["spent"]["trained"] == 2, "what it cost is in the record of its end"


def test_a_ledger_of_another_folder_books_the_stage_itself(job, tmp_path):
    other = replace(job, ledger=Ledger(FileJournal(tmp_path / "journal.jsonl")))
    with other.stage("a.b", "A"):
        other.ledger.count(trained=2)
        other.end("a.b", Found(3))
    assert {s.name: s.networks_trained for s in other.ledger.summary().stages}["a"] == 2
    assert "a" not in {s.name for s in job.ledger.summary().stages}


def test_a_stage_that_fails_is_not_done(job):
    with pytest.raises(ZeroDivisionError), job.stage("a", "A"):
        job.end("a", Found(1 // 0))
    assert job.done("a", Found) is None


def test_a_bar_shows_all_or_one_of_several_parts(job, monkeypatch):
    seen = []
    monkeypatch.setattr(job.display, "bar", lambda *told: seen.append(told))
    job.bar("all")(2, 4)
    job.bar("parts", 1, 3)(2, 4)
    assert seen == [(2, 4, "all"), (1.5, 3, "parts")]


def test_a_record_of_another_version_names_the_stage_and_the_field(job):
    job.folder.end_stage("a", {"number": 3})
    with pytest.raises(StateError, match=r"stage a: value is not as it should be"):
        job.done("a", Found)


def test_costs_are_counted_on_the_network(job):
    entry = job.entry(Chosen("some", (0, 1, 2)), Estimate(1.0, 0.9, 1.1), None)
    module = job.parts.build((0, 1, 2))
    assert entry.params == sum(p.numel() for p in module.parameters())
    assert entry.options == {"conv0": 4, "separable1": 8, "separable2": 12}
    assert entry.weights == "artifacts/some.safetensors"

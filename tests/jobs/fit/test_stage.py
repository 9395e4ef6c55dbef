from __future__ import annotations

from dataclasses import dataclass

import pytest

from sartor.core.errors import StateError
from sartor.core.records import Estimate
from sartor.jobs.fit.assemble import assemble
from sartor.jobs.fit.stage import Chosen, Job
from sartor.run.folder import RunFolder
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


def test_a_stage_is_done_once_and_gives_the_same_record(job):
    calls = []

    def work():
        calls.append(1)
        return Found(3)

    assert job.stage("a.b", "A", Found, work) == job.stage("a.b", "A", Found, work) == Found(3)
    assert len(calls) == 1
    assert "a" in {s.name for s in job.ledger.summary().stages}
    assert job.stage_result("c", Found) is None


def test_a_stage_that_fails_is_not_done(job):
    with pytest.raises(ZeroDivisionError):
        job.stage("a", "A", Found, lambda: Found(1 // 0))
    assert job.stage("a", "A", Found, lambda: Found(2)) == Found(2)


def test_a_record_of_another_version_names_the_stage_and_the_field(job):
    job.folder.end_stage("a", {"number": 3})
    with pytest.raises(StateError, match=r"stage a: value is not as it should be"):
        job.stage("a", "A", Found, lambda: Found(2))


def test_costs_are_counted_on_the_network(job):
    entry = job.entry(Chosen("some", (0, 1, 2)), Estimate(1.0, 0.9, 1.1), None)
    module = job.parts.build((0, 1, 2))
    assert entry.params == sum(p.numel() for p in module.parameters())
    assert entry.options == {"conv0": 4, "separable1": 8, "separable2": 12}
    assert entry.weights == "artifacts/some.safetensors"

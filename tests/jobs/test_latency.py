"""The latency-model stage: what is measured is kept, reused, and expressed in the run's own milliseconds."""

from __future__ import annotations

import json

import pytest

from sartor.core.errors import DataError
from sartor.jobs import latency
from sartor.jobs.parts import assemble
from sartor.jobs.stages import Job
from sartor.latency.samples import Header, Sample, append
from sartor.measure import Estimate
from sartor.run.folder import RunFolder
from sartor.run.ledger import Ledger
from sartor.run.progress import Silent
from small import latency_settings


class Formula:
    """A meter whose target takes a tenth of a millisecond per channel."""

    anchor = Estimate(4.0, 3.9, 4.1)

    def __init__(self):
        self.measured = []

    def brief(self, arch, *, rounds):
        self.measured.append(arch)
        value = 0.1 * sum((8, 32, 64, 128)[a] for a in arch)
        return Estimate(value, 0.98 * value, 1.02 * value)


def job_in(folder, **changes):
    config = latency_settings(target={"name": "torch_cpu"}, **changes)
    run = RunFolder(folder, config)
    return Job(assemble(config), run, Ledger(run.journal), Silent())


def test_nothing_that_is_in_the_file_is_measured_again(tmp_path):
    job, meter = job_in(tmp_path / "run"), Formula()
    result = latency.fit_latency_model(job, meter)
    assert (result["training_networks"], result["heldout_networks"]) == (12, 4)
    assert len(meter.measured) == 16
    path = latency.samples_path(job)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:9]) + '\n{"arch": [0, ')  # killed while it wrote the ninth sample
    again = Formula()
    assert latency.fit_latency_model(job, again) == result
    assert len(again.measured) == 8
    job.folder.close()


def test_samples_of_an_earlier_run_are_scaled_to_this_runs_reference(tmp_path):
    job = job_in(tmp_path / "a")
    latency.fit_latency_model(job, Formula())
    first = latency.latency_model(job, Formula())
    job.folder.close()
    other = job_in(tmp_path / "b", latency_model={"samples": str(latency.samples_path(job))})
    meter = Formula()
    meter.anchor = Estimate(8.0, 7.9, 8.1)  # the same machine, twice as slow today
    latency.fit_latency_model(other, meter)
    assert not meter.measured
    second = latency.latency_model(other, meter)
    archs = [(0, 1, 2), (3, 3, 3), (2, 0, 1)]
    assert (second(archs) / first(archs)).tolist() == pytest.approx([2.0, 2.0, 2.0], rel=1e-3)
    other.folder.close()


def test_samples_of_another_space_are_refused(tmp_path):
    stranger = tmp_path / "samples.jsonl"
    append(stranger, Header("Other", (2, 2), {}, ""), [Sample((0, 1), 1.0, 1.0, 1.0)])
    job = job_in(tmp_path / "run", latency_model={"samples": str(stranger)})
    with pytest.raises(DataError, match="holds samples of Other"):
        latency.fit_latency_model(job, Formula())
    records = map(json.loads, (tmp_path / "run/journal.jsonl").read_text().splitlines())
    assert "stage" not in {r["kind"] for r in records}
    job.folder.close()

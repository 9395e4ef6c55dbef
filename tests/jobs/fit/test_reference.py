"""The latency-model stage: what is measured is kept, reused, and expressed in the run's own milliseconds."""

from __future__ import annotations

import json

import pytest

from operated import Operations, device
from sartor.core.errors import CapabilityError, DataError
from sartor.core.records import Estimate
from sartor.jobs.fit import reference as latency
from sartor.jobs.fit.assemble import assemble
from sartor.jobs.fit.stage import Job
from sartor.latency.operator_table import Entry, OperatorTable
from sartor.latency.samples import Header, Sample, append
from sartor.run.folder import RunFolder
from sartor.run.ledger import Ledger
from sartor.run.progress import Silent
from sartor.timing.rounds import Rounds
from small import latency_settings


class Formula:
    """A meter whose target takes a tenth of a millisecond per channel."""

    anchor = Estimate(4.0, 3.9, 4.1)

    def __init__(self):
        self.measured = []

    def visit(self, networks, *, rounds, seed, on_round):
        self.measured += networks
        row = tuple(1e-4 * sum((8, 32, 64, 128)[a] for a in arch) for arch in networks)
        drift = [1.0, 1.7, 0.8][:rounds]  # conditions that all networks of a round share
        return Rounds(tuple(map(str, range(len(networks)))), tuple(tuple(d * t for t in row) for d in drift), ())


def job_in(folder, **changes):
    config = latency_settings(target={"name": "torch_cpu"}, **changes)
    run = RunFolder(folder, config)
    return Job(assemble(config), run, Ledger(run.journal), Silent())


def test_nothing_that_is_in_the_files_is_measured_again(tmp_path):
    job, meter = job_in(tmp_path / "run"), Formula()
    model = latency.measured_model(job, meter)
    found = latency.facts(model)
    assert (found.training_networks, found.heldout_networks) == (12, 4)
    assert len(set(meter.measured)) == 16
    assert found.nrmse < 0.15
    latency.samples_path(job).unlink()  # killed before the samples were written, in the middle of the last visits
    visits = job.folder.artifacts / "visits.jsonl"
    lines = visits.read_text().splitlines()
    assert len(lines) == 4, "two sweeps over all, two more over the held-out ones"
    visits.write_text("\n".join(lines[:3]) + '\n{"kind": "visits", "sw')
    again = Formula()
    assert latency.facts(latency.measured_model(job, again)) == found
    assert len(again.measured) == 4 + 1, "only the last chunk, and the reference"
    latency.measured_model(job, third := Formula())
    assert not third.measured
    job.folder.close()


def test_what_all_networks_of_a_round_share_is_no_latency(tmp_path):
    job = job_in(tmp_path / "run")
    model = latency.measured_model(job, Formula())
    for arch, measured, _ in model.predictions:
        truth = sum((8, 32, 64, 128)[a] for a in arch) / (3 * 128)
        assert measured == pytest.approx(4.0 * truth, rel=1e-3), "in milliseconds of the anchor"
    job.folder.close()


def test_samples_of_an_earlier_run_are_scaled_to_this_runs_reference(tmp_path):
    job = job_in(tmp_path / "a")
    latency.measured_model(job, Formula())
    first = latency.latency_model(job, Formula())
    job.folder.close()
    other = job_in(tmp_path / "b", latency_model={"samples": str(latency.samples_path(job))})
    meter = Formula()
    meter.anchor = Estimate(8.0, 7.9, 8.1)  # the same machine, twice as slow today
    latency.measured_model(other, meter)
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
        latency.measured_model(job, Formula())
    records = map(json.loads, (tmp_path / "run/journal.jsonl").read_text().splitlines())
    assert "stage" not in {r["kind"] for r in records}
    job.folder.close()


def table(factor=1.0):
    return OperatorTable({o.key: Entry(factor * device(o.key)) for o in Operations().operators().all()})


class Sum(Formula):
    """A meter whose target takes 0.1 ms and what the made-up device takes for each operator."""

    anchor = Estimate(0.1 + table().tables(Operations()).cost(Operations().reference), 0.0, 9.0)

    def visit(self, networks, *, rounds, seed, on_round):
        self.measured += networks
        truth = table().tables(Operations())(networks).tolist()
        rows = tuple(tuple(1e-3 * d * (0.1 + t) for t in truth) for d in [1.0, 1.7, 0.8][:rounds])
        return Rounds(tuple(map(str, range(len(networks)))), rows, ())


def test_networks_of_operators_need_no_table_but_may_have_one(tmp_path):
    table(1.5).write(tmp_path / "operators.json")
    said = []
    for name, changes in (("without", {}), ("with", {"table": str(tmp_path / "operators.json")})):
        job = job_in(tmp_path / name, space={"name": "operated:Operations"}, task={"name": "digits", "size": 8},
                     latency_model={"networks": 20, "heldout": 6, "sweeps": 1, "rounds": 3, **changes})  # fmt: skip
        job.display.say = said.append
        model = latency.measured_model(job, meter := Sum())
        found = latency.facts(model)
        assert found.nrmse < 0.02
        assert (found.lookup.nrmse if found.lookup else 0) == pytest.approx(0.3 if changes else 0, abs=0.1)
        if changes:
            (tmp_path / "operators.json").unlink()
            assert latency.facts(latency.measured_model(job, meter)) == found, "the run has a copy of the table"
        job.folder.close()
    assert any("its table of operators alone: NRMSE" in line for line in said)


def test_a_table_that_fits_no_run_is_refused_before_anything_is_measured(tmp_path):
    table().write(tmp_path / "operators.json")
    settings = {"table": str(tmp_path / "operators.json")}
    with pytest.raises(CapabilityError, match=r"latency_model.table needs Operated, which Tiny does not offer"):
        assemble(latency_settings(latency_model=settings))
    with pytest.raises(DataError, match="no latency of 'stem-16', which every network runs"):
        assemble(latency_settings(space={"name": "operated:Operations"}, latency_model=settings))

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from sartor.core.errors import ConfigError
from sartor.jobs.fit.api import fit
from sartor.jobs.fit.workers import check, seen, workers_of
from sartor.jobs.search import search
from sartor.run.journal import FileJournal
from small import settings

TRIALS = {"name": "regularized_evolution", "trials": 6, "batch": 3, "population": 3}
EVOLVED = settings(strategy=TRIALS, evaluator={"name": "train"}, training={"epochs": 1})
HEIRS = settings(
    strategy={"name": "netadapt", "metric": "macs", "step": 0.3}, evaluator={"name": "finetune"}, training={"epochs": 1}
)
TWO = {"name": "processes", "count": 2}


def journal(folder):
    return (folder / "search" / "journal.jsonl").read_bytes()


@pytest.mark.parametrize("config", [pytest.param(EVOLVED, marks=pytest.mark.slow), HEIRS], ids=["evolution", "parents"])
def test_real_trainings_in_processes_leave_the_journal_of_the_serial_search(tmp_path, config):
    search(config, tmp_path / "serial", command="same")
    search({**config, "limits": {"trials": 2}}, tmp_path / "two", command="same")
    search({**config, "workers": TWO}, tmp_path / "two", command="same")
    assert journal(tmp_path / "two") == journal(tmp_path / "serial")
    ran = [r for r in FileJournal(tmp_path / "two" / "search" / "workers.jsonl").read() if r["kind"] == "ran"]
    assert len(ran) == journal(tmp_path / "two").count(b'"kind": "trial"') - 2 >= 2
    assert {r["by"]["threads"] for r in ran} == {1}


def test_a_strategy_that_trains_one_network_for_all_its_trials_does_so_here(tmp_path):
    search({**settings(), "workers": TWO}, tmp_path, command="same")
    assert not (tmp_path / "search" / "workers.jsonl").exists()


BATCHES = [(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.long))]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"space": nn.Sequential(nn.Flatten(), nn.Linear(64, 10))}, r"the space again from its name, and torch\..*Seq"),
        ({"task": (BATCHES, BATCHES, BATCHES)}, "the task again from its name, and .*Task is an object that only this"),
    ],
)
def test_what_only_this_process_has_is_refused_with_the_line_that_names_it(tmp_path, given, words):
    with pytest.raises(ConfigError, match=rf"workers build {words}.*; name it, as in .* or run without workers"):
        fit(**given, recipe=EVOLVED, workers=TWO, budget={"macs": "50%"}, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "processs"}, "no workers called 'processs'; did you mean 'processes'"),
        ({"name": "processes", "cores": 2}, "Processes has no setting 'cores'"),
        ({"name": "processes", "cpus": 4096}, "workers.cpus = 4096, and no machine has more"),
        ({"count": "two"}, "Serial.count must be a whole number"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_at_the_start(table, message):
    with pytest.raises(ConfigError, match=message):
        check({"workers": table})


def test_a_time_limit_of_trials_is_the_workers():
    assert workers_of(TWO, None, {"trial_seconds": 3.0}).trial_seconds == 3.0
    assert workers_of({**TWO, "trial_seconds": 2.0}, None, {"trial_seconds": 3.0}).trial_seconds == 2.0
    assert workers_of(TWO, None, {"hours": 1}).trial_seconds is None
    assert workers_of({}, None).elsewhere is False


def test_what_workers_must_see_is_new_every_time(tmp_path):
    path, text = seen(tmp_path)
    assert (tmp_path / path).read_text() == text != seen(tmp_path)[1]
    json.dumps(text)

from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import asdict, replace

import optuna
import pytest
import tomli_w

from sartor.core.errors import StateError
from sartor.core.records import Objective, Trial
from sartor.jobs.optuna_study import Study, export_studies
from sartor.jobs.search import search
from sartor.run.result import read_searched, read_trace, write
from small import settings

optuna.logging.set_verbosity(optuna.logging.WARNING)

STRATEGY = {"name": "random_search", "trials": 4}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A finished search with four real trials."""
    folder = tmp_path_factory.mktemp("studies") / "digits"
    search(settings(strategy=STRATEGY, training={"epochs": 1, "lr": 0.1}), folder, command="sartor search")
    return folder


@pytest.fixture
def unfinished(tmp_path):
    """A search that was killed after a rewind and a failed trial, in the middle of a line."""
    folder = tmp_path / "half"
    (folder / "search").mkdir(parents=True)
    (folder / "config.toml").write_text(tomli_w.dumps(settings(budget={"macs": [30e3, 20e3]}, strategy=STRATEGY)))
    metrics = {"macs": 25e3, "params": 10.0, "accuracy": 0.5}
    trials = [
        Trial(0, (0, 1, 2), 1.0, metrics),
        Trial(1, (3, 3, 3), 1.0, {**metrics, "macs": 40e3}),
        Trial(1, (0, 0, 0), 0.5, {"macs": 9e3, "params": 9.0}, "DivergedError: the loss is nan"),
        Trial(2, (1, 1, 1), 1.0, {**metrics, "macs": 31e3, "accuracy": 0.75}, parent=0),
    ]
    records = [{"kind": "trial", **asdict(t)} for t in trials]
    records[2:2] = [{"kind": "rewind", "to": 1}]
    text = "".join(json.dumps(r) + "\n" for r in records)
    (folder / "search" / "journal.jsonl").write_text(text + '{"kind": "trial", "ind')
    return folder


def loaded(path, name):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{path}")


def test_a_finished_search(searched, tmp_path):
    found = export_studies(searched, tmp_path / "new" / "studies.db")
    assert found.studies == (Study("digits", 4, 0),)
    assert found.file == str(tmp_path / "new" / "studies.db")
    assert found.open == f"optuna-dashboard sqlite:///{tmp_path / 'new' / 'studies.db'}"
    study, told = loaded(tmp_path / "new" / "studies.db", "digits"), read_searched(searched)
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert study.metric_names == ["accuracy"]
    (point,), trials = told.found, read_trace(searched / "search").trials
    assert study.user_attrs["limits"] == point.budget
    assert len(trials) == told.search.evaluations == 4
    for trial, truth in zip(study.trials, trials, strict=True):
        assert trial.params == {c.name: c.options[a] for c, a in zip(told.search.choices, truth.arch, strict=True)}
        assert trial.value == truth.metrics["accuracy"]
        assert trial.user_attrs["macs"] == truth.metrics["macs"]
        assert trial.system_attrs["constraints"] == [truth.metrics["macs"] - study.user_attrs["limits"]["macs"]]
    assert study.best_value == max(t.metrics["accuracy"] for t in trials)


def test_a_search_for_a_small_error_is_minimised(searched, tmp_path):
    folder = tmp_path / "less"
    shutil.copytree(searched, folder)
    told = read_searched(folder)
    write(folder, replace(told, search=replace(told.search, objectives=(Objective("accuracy", "min"),))))
    export_studies(folder, tmp_path / "studies.db")
    study = loaded(tmp_path / "studies.db", "less")
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    values = [t.metrics["accuracy"] for t in read_trace(folder / "search").trials]
    assert [t.value for t in study.trials] == values
    assert study.best_value == min(values)


def test_a_finished_fit_is_told_by_its_result(finished, tmp_path):
    found = export_studies(finished.folder, tmp_path / "studies.db")
    study, result = loaded(tmp_path / "studies.db", finished.folder.name), finished.result
    assert found.studies == (Study(finished.folder.name, result.search.evaluations, result.search.failed),)
    assert study.user_attrs["limits"] == result.points[0].budget
    assert study.metric_names == [result.metric.name]


def test_an_unfinished_search(unfinished, tmp_path):
    export_studies(unfinished, tmp_path / "studies.db")
    study = loaded(tmp_path / "studies.db", "half")
    complete, fail = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL
    assert [t.state for t in study.trials] == [complete, fail, complete]
    assert [t.params["conv0"] for t in study.trials] == [4, 4, 8]
    assert [t.system_attrs["constraints"] for t in study.trials] == [[-5e3], [-21e3], [1e3]]  # of the loosest budget
    assert study.trials[1].user_attrs["error"].startswith("DivergedError")
    assert study.trials[1].user_attrs["fidelity"] == 0.5
    assert study.trials[2].user_attrs["parent"] == 0
    assert study.trials[0].distributions["conv0"] == optuna.distributions.CategoricalDistribution((4, 8, 12, 16))
    feasible = study.best_trial  # Optuna leaves out what is over a limit
    assert feasible.number == 0


def test_twice_is_once_and_others_stay(searched, unfinished, tmp_path):
    out = tmp_path / "studies.db"
    for folder in (searched, unfinished, searched):
        export_studies(folder, out)
    names = {s.study_name: s.n_trials for s in optuna.get_all_study_summaries(f"sqlite:///{out}")}
    assert names == {"digits": 4, "half": 3}
    assert not list(tmp_path.glob("*.part"))


def test_a_folder_of_searches(searched, tmp_path):
    for seed in ("0", "1"):
        (tmp_path / "all" / "runs" / seed).mkdir(parents=True)
        for name in ("config.toml", "search.json"):
            (tmp_path / "all" / "runs" / seed / name).write_bytes((searched / name).read_bytes())
        (tmp_path / "all" / "runs" / seed / "search").mkdir()
        journal = (searched / "search" / "journal.jsonl").read_bytes()
        (tmp_path / "all" / "runs" / seed / "search" / "journal.jsonl").write_bytes(journal)
    found = export_studies(tmp_path / "all", tmp_path / "all.db")
    assert [s.name for s in found.studies] == ["all/runs/0", "all/runs/1"]


def test_mistakes(searched, tmp_path):
    with pytest.raises(StateError, match="no search has begun"):
        export_studies(tmp_path, tmp_path / "x.db")
    with pytest.raises(StateError, match="is a folder; name a file"):
        export_studies(searched, tmp_path)
    (tmp_path / "text.db").write_text("not a database")
    with pytest.raises(StateError, match="no storage of Optuna"):
        export_studies(searched, tmp_path / "text.db")
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE studies (name TEXT)")
    with pytest.raises(StateError, match="this version of Optuna cannot write to"):
        export_studies(searched, tmp_path / "other.db")


def test_a_study_of_something_else_is_not_replaced(searched, tmp_path):
    out = tmp_path / "studies.db"
    optuna.create_study(study_name="digits", storage=f"sqlite:///{out}")
    before = out.read_bytes()
    with pytest.raises(StateError, match="has a study 'digits' already, which shows something else"):
        export_studies(searched, out)
    assert out.read_bytes() == before

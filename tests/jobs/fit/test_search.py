from __future__ import annotations

import pytest

from sartor.core.errors import BudgetError, ConfigError
from sartor.core.records import Constraint, Objective, Trial
from sartor.jobs.fit.assemble import analytic_costs, assemble
from sartor.jobs.fit.search import limits_of, prepare, ranked, solve
from sartor.jobs.fit.stage import Job
from sartor.run.folder import RunFolder
from sartor.run.journal import FileJournal
from sartor.run.ledger import Ledger
from sartor.run.progress import Silent
from sartor.run.result import Moment, read_trace
from small import settings


def _widths(archs):
    return [float(a[0] + 1) for a in archs]


def test_the_best_feasible_trial_answers_for_strategies_that_cannot():
    trials = [
        Trial(0, (3,), 1.0, {"accuracy": 0.7}),
        Trial(1, (9,), 1.0, {"accuracy": 0.9}),
        Trial(2, (4,), 1.0, {"accuracy": 0.8}),
        Trial(3, (2,), 1.0, {}, error="diverged"),
    ]
    costs, objective = {"latency_ms": _widths}, Objective("accuracy", "max")
    assert solve(object(), trials, costs, {"latency_ms": 6.0}, objective) == (4,)
    assert ranked(trials, costs, {"latency_ms": 60.0}, objective) == [(9,), (4,), (3,)]
    with pytest.raises(BudgetError, match="none of the 4 trials"):
        solve(object(), trials, costs, {"latency_ms": 2.0}, objective)


@pytest.fixture
def prepared(tmp_path):
    opened = []

    def make(**changes):
        config = settings(**changes)
        run = RunFolder(tmp_path / "run", config)
        opened.append(run)
        job = Job(assemble(config), run, Ledger(run.journal), Silent())
        costs = analytic_costs(job.parts.space)
        half = float(costs["macs"]([job.parts.space.reference])[0]) / 2
        return prepare(job, costs, (Constraint("macs", half),))

    yield make
    for run in opened:
        run.close()


def test_a_strategy_without_a_supernet_trains_its_trials_with_the_jobs_recipe(prepared):
    search = prepared(strategy={"name": "random_search", "trials": 3}, training={"epochs": 1, "lr": 0.1})
    assert not search.strategy.shares_weights
    assert search.evaluator.recipe.epochs == 1
    assert search.run()
    trials = search.trials()
    assert len(trials) == 3
    best = max(trials, key=lambda t: t.metrics["accuracy"])
    assert search.propose({"macs": 1e9}) == best.arch
    summary = search.summary()
    assert (summary.strategy, summary.evaluations, summary.failed) == ("random_search", 3, 0)
    assert [(p.fidelity, p.epochs) for p in summary.paid] == [(1.0, 1.0)]
    assert [(o.metric, o.goal) for o in summary.objectives] == [("accuracy", "max")]


def test_a_supernet_strategy_inherits(prepared):
    search = prepared(strategy={"name": "aows", "epochs": 2})
    assert search.strategy.shares_weights
    assert search.run()
    assert read_trace(search.job.folder.path / "search").narrowing
    assert search.problem.cost("macs")([search.propose(search.problem.limits())])[0] <= search.problem.limit("macs")


def test_preferences_learned_are_how_the_search_narrowed(prepared):
    search = prepared(space={"name": "mbconv", "preset": "small"}, strategy={"name": "tunas", "epochs": 2})
    folder = search.job.folder.path / "search"
    assert read_trace(folder).narrowing == ()
    (folder / "artifacts").mkdir(parents=True)
    (folder / "artifacts/preferences.json").write_text('{"probabilities": [[0.25, 0.75]]}')
    for epoch in (1, 2):
        FileJournal(folder / "journal.jsonl").append({"kind": "log", "step": epoch, "epoch": epoch})
    assert read_trace(folder).narrowing == (Moment(2, ((0.25, 0.75),)),)


def test_netadapt_fine_tunes_from_the_spaces_own_weights(prepared):
    search = prepared(strategy={"name": "netadapt", "step": 0.2}, evaluator={"steps": 2})
    assert search.evaluator.path == ""
    assert search.evaluator.recipe.lr == 1e-3
    assert search.run()
    weights = search.job.folder.path / "search" / "artifacts" / "weights"
    assert {int(p.stem) for p in weights.iterdir()} == {t.index for t in search.strategy.trail}
    assert search.problem.cost("macs")([search.propose(search.problem.limits())])[0] <= search.problem.limit("macs")


def test_limits_end_a_search_that_goes_on_later(prepared, tmp_path):
    table = {"strategy": {"name": "random_search", "trials": 3}, "training": {"epochs": 1, "lr": 0.1}}
    first = prepared(**table, limits={"trials": 1})
    assert not first.run()
    first.job.folder.close()
    second = prepared(**table)
    assert second.run()
    assert len(second.trials()) == 3


def test_unknown_settings_are_named(prepared):
    with pytest.raises(ConfigError, match="did you mean 'calibrate'"):
        prepared(strategy={"name": "ows", "epochs": 2}, evaluator={"calibrat": 3})


def test_the_time_of_a_trial_is_that_of_the_workers_or_of_the_limits():
    assert limits_of({"limits": {"trials": 3, "trial_seconds": 9.0}}) == {"trials": 3, "trial_seconds": 9.0}
    workers = {"name": "serial", "count": 1, "trial_seconds": 2.0}
    assert limits_of({"limits": {"trials": 3, "trial_seconds": 9.0}, "workers": workers})["trial_seconds"] == 2.0
    assert limits_of({}) == {}

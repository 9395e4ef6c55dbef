from __future__ import annotations

import pytest

from problems import small_problem
from sartor.core.errors import ConfigError
from sartor.evaluators.synthetic import Synthetic
from sartor.run.journal import FileJournal, read_trials
from sartor.run.runner import run
from sartor.solvers.budgets import within
from sartor.strategies.random_search import RandomSearch


def test_ends_after_its_trials_and_answers_with_the_best_one(tmp_path):
    problem = small_problem()
    strategy = RandomSearch(problem, 0, trials=30, batch=4)
    assert run(strategy, problem, Synthetic(problem), folder=tmp_path, seed=0)
    trials = read_trials(FileJournal(tmp_path / "journal.jsonl"))
    assert len(trials) == 30
    assert len({t.arch for t in trials}) > 10
    best = max(trials, key=lambda t: t.metrics["accuracy"])
    assert strategy.solve(problem.limits()) == best.arch
    tight = {"macs": sorted(t.metrics["macs"] for t in trials)[10]}
    allowed = [t for t in trials if within(problem, t.arch, tight)]
    assert strategy.solve(tight) == max(allowed, key=lambda t: t.metrics["accuracy"]).arch


@pytest.mark.parametrize("settings", [{"trials": 0}, {"batch": 0}])
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError, match="at least 1"):
        RandomSearch(small_problem(), 0, **settings)

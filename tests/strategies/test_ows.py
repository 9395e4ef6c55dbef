from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from problems import small_problem
from sartor import archs
from sartor.core.errors import BudgetError, CapabilityError, StateError
from sartor.core.records import Constraint
from sartor.core.rng import torch_rng
from sartor.data.quality import accuracy
from sartor.evaluators.inherited import Inherited
from sartor.run.journal import FileJournal, read_trials
from sartor.run.runner import run
from sartor.solvers.budgets import levels, within
from sartor.strategies.ows import Ows
from sartor.supernet.slimmable import draw, uniform


def taught(problem, **settings):
    """A strategy that was shown additive losses, and those losses."""
    strategy = Ows(problem, 0, epochs=1, **settings)
    effects = torch.rand(3, 4, generator=torch_rng(5), dtype=torch.float64).sort(1, descending=True).values
    paths = draw(uniform(problem.space.choices), 1000, torch_rng(0))
    strategy.training.statistics.add(paths, effects[torch.arange(3), paths].sum(1))
    strategy.training.statistics.tune()
    return strategy, lambda arch: float(effects[torch.arange(3), list(arch)].sum())


@pytest.mark.parametrize("statistics", ["least_squares", "mean"])
def test_solves_for_the_least_loss_within_the_limits(statistics):
    problem = small_problem()
    strategy, loss = taught(problem, statistics=statistics)
    for limits in levels(problem):
        best = min((a for a in archs.enumerate_all(problem.space) if within(problem, a, limits)), key=loss)
        found = strategy.solve(limits)
        assert within(problem, found, limits)
        if statistics == "least_squares":  # the mean is the truth plus sampling noise
            assert found == best
        assert loss(found) <= loss(best) + 0.1


def test_exact_decoding_is_at_least_as_good_as_lagrangian():
    problem = replace(small_problem(), constraints=(Constraint("macs", 3000.0),))
    (exact, loss), (hull, _) = taught(problem), taught(problem, decoder="lagrangian")
    floor = float(problem.cost("macs")([archs.smallest(problem.space)])[0])
    full = float(problem.cost("macs")([archs.largest(problem.space)])[0])
    losses = []
    for share in torch.linspace(0.02, 0.98, 25).tolist():
        limits = {"macs": floor + share * (full - floor)}
        losses.append((loss(exact.solve(limits)), loss(hull.solve(limits))))
    assert all(a <= b + 1e-9 for a, b in losses)
    assert any(a < b for a, b in losses)


def test_evaluates_the_solution_of_every_level_with_its_own_supernet(tmp_path):
    problem = small_problem()
    problem = replace(problem, task=replace(problem.task, metrics=accuracy(2)))
    strategy = Ows(problem, 0, epochs=20, lr=3.0)
    judge = Inherited(problem, supernet=tmp_path / "artifacts/supernet.safetensors", calibrate=2, device="cpu")
    assert run(strategy, problem, judge, folder=tmp_path, seed=0)
    trials = read_trials(FileJournal(tmp_path / "journal.jsonl"))
    assert [t.arch for t in trials] == list(dict.fromkeys(strategy.solve(limits) for limits in levels(problem)))
    assert trials[0].ok
    assert trials[0].metrics["accuracy"] > 0.8


def test_says_what_is_wrong_before_training():
    problem = small_problem()
    with pytest.raises(CapabilityError, match="lagrangian"):
        Ows(problem, 0, decoder="lagrangian")
    with pytest.raises(BudgetError):
        Ows(replace(problem, constraints=(Constraint("macs", 1.0),)), 0)
    with pytest.raises(StateError, match="train"):
        Ows(problem, 0).solve(problem.limits())

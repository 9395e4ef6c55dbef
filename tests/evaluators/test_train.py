from dataclasses import replace

import pytest

from cnn import graded_task
from problems import small_problem
from sartor.core.contracts import Problem
from sartor.core.errors import CapabilityError, ConfigError
from sartor.core.records import Objective, Proposal
from sartor.core.rng import derive, global_seed
from sartor.evaluators.train import Train
from sartor.spaces.tiny import Tiny
from sartor.training import Recipe, evaluate, fit


def bright_problem():
    return Problem(Tiny(classes=2, size=8), (Objective("accuracy", "max"),), task=graded_task())


def test_it_builds_trains_and_evaluates():
    problem, recipe = bright_problem(), Recipe(epochs=3, device="cpu")
    with global_seed(derive(4, "initialisation")):
        module = problem.space.build((1, 2, 3))
    fit(module, problem.task, recipe, seed=derive(4, "training"), fidelity=0.7)
    expected = evaluate(module, problem.task.valid(), problem.task)
    assert Train(problem, recipe=recipe)(Proposal((1, 2, 3), fidelity=0.7), 4) == expected


def test_it_costs_its_epochs():
    train = Train(bright_problem(), recipe={"epochs": 9})
    assert [train.epochs(f) for f in (1.0, 1 / 3, 1 / 9, 0.01)] == [9, 3, 1, 1]


def test_training_helps():
    train = Train(bright_problem(), recipe={"epochs": 15, "device": "cpu"})
    assert train(Proposal((3, 3, 3)), 0)["accuracy"] > 0.9


def test_what_is_wrong_is_told():
    with pytest.raises(CapabilityError, match="Train needs a task"):
        Train(replace(small_problem(), task=None))
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        Train(small_problem(), recipe={"epoch": 3})

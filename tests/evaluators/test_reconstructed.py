from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cnn import graded_task, trained_residual
from sartor.core.contracts import Problem
from sartor.core.errors import CapabilityError, ConfigError
from sartor.core.records import Objective, Proposal
from sartor.evaluators.reconstructed import Reconstructed
from sartor.spaces.tiny import Tiny
from sartor.spaces.widths import Widths
from sartor.training import evaluate


@pytest.fixture(scope="module")
def problem():
    task = graded_task()
    space = Widths(network=trained_residual(task), input_shape=(1, 8, 8), divisor=1, multipliers=(0.5, 0.75))
    return Problem(space, (Objective("hinge", "min"),), task=task)


def cut(problem, arch):
    return evaluate(problem.space.build(arch), problem.task.valid(), problem.task)


def test_it_judges_what_is_left_after_fitting(problem):
    judge = Reconstructed(problem, device="cpu")
    module = problem.space.build((0, 1, 2))
    found = judge(Proposal((0, 1, 2)), 0)
    problem.space.reconstruct((0, 1, 2), module, judge._seen)
    assert found == evaluate(module, problem.task.valid(), problem.task)
    assert found["hinge"] < cut(problem, (0, 1, 2))["hinge"]


def test_the_whole_network_is_judged_as_it_is(problem):
    full = problem.space.reference
    assert Reconstructed(problem, device="cpu")(Proposal(full), 0) == cut(problem, full)


def test_examples_are_training_batches_as_many_as_asked_for(problem):
    judge = Reconstructed(problem, examples=2, device="cpu")
    judge(Proposal((0, 0, 0)), 0)
    assert len(judge._seen) == 2
    assert judge._seen[0][0].shape == (16, 1, 8, 8)
    fewer = Reconstructed(problem, examples=1, device="cpu")
    assert fewer(Proposal((0, 0, 0)), 0) != judge(Proposal((0, 0, 0)), 0)


def test_batches_limit_the_validation(problem):
    ((x, y),) = problem.task.valid()
    halves = replace(problem, task=replace(problem.task, valid=lambda: [(x[:20], y[:20]), (x[20:], y[20:])]))
    one = Reconstructed(halves, batches=1, device="cpu")(Proposal((0, 1, 2)), 0)
    assert one != Reconstructed(halves, device="cpu")(Proposal((0, 1, 2)), 0)


def test_mistakes_are_named(problem):
    with pytest.raises(CapabilityError, match="needs a task"):
        Reconstructed(replace(problem, task=None))
    with pytest.raises(ConfigError, match="examples is 0"):
        Reconstructed(problem, examples=0)
    with pytest.raises(CapabilityError, match="Pretrained"):
        Reconstructed(replace(problem, space=Tiny(classes=2, size=8)))
    untrained = Widths(network="nets:Residual", input_shape=(3, 8, 8))
    with pytest.raises(CapabilityError, match="Widths as it is set does not"):
        Reconstructed(replace(problem, space=untrained))
    assert torch.is_grad_enabled()

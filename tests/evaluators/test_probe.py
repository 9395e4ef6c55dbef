from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cnn import graded_task, trained_residual
from sartor.core.contracts import Problem
from sartor.core.errors import CapabilityError, ConfigError
from sartor.core.records import Objective, Proposal
from sartor.evaluators.probe import Probe
from sartor.spaces.tiny import Tiny
from sartor.spaces.widths import Widths
from sartor.training import Recipe, batches_of, evaluate

RECIPE = Recipe(epochs=4, lr=0.02, device="cpu")
CUT = (0, 1, 0)


@pytest.fixture(scope="module")
def problem():
    task = graded_task()
    space = Widths(network=trained_residual(task), input_shape=(1, 8, 8), divisor=1, multipliers=(0.5, 0.75))
    return Problem(space, (Objective("hinge", "min"),), task=task)


def test_at_the_smallest_fidelity_nothing_is_trained(problem):
    probe = Probe(problem, recipe=RECIPE)
    module = problem.space.build(CUT)
    problem.space.reconstruct(CUT, module, probe._seen)
    found = probe(Proposal(CUT, 0.01), 0)
    assert found["hinge"] == evaluate(module, problem.task.valid(), problem.task)["hinge"]
    assert probe.epochs(0.01) == 0
    assert probe.epochs(0.5) == 2


def test_trainings_have_their_fraction_of_the_batches(problem):
    seen = []

    def counted(generator):
        for batch in problem.task.train(generator):
            seen.append(len(batch[0]))
            yield batch

    probe = Probe(replace(problem, task=replace(problem.task, train=counted)), recipe=RECIPE)
    probe(Proposal(CUT, 0.01), 0)  # what is only read once has been read
    probe._epoch  # noqa: B018 - counted once
    before = len(seen)
    probe(Proposal(CUT, 0.5), 0)
    assert len(seen) - before == 2 * batches_of(problem.task)


def test_it_learns(problem):
    probe = Probe(problem, recipe=replace(RECIPE, lr=0.05))
    look, whole = (probe(Proposal(CUT, f), 0) for f in (0.01, 1.0))
    assert whole["hinge"] < look["hinge"]


def test_nothing_is_nearer_than_the_original(problem):
    probe = Probe(problem, recipe=RECIPE)
    whole, some, few = (
        probe(Proposal(a, 0.01), 0)["distance"] for a in (problem.space.reference, (1, 2, 1), (0, 0, 0))
    )
    assert whole < some < few


def test_the_same_network_is_judged_alike_whatever_the_seed(problem):
    probe = Probe(problem, recipe=RECIPE)
    assert probe(Proposal(CUT, 0.25), 0) == probe(Proposal(CUT, 0.25), 1)


def test_the_teacher_takes_part(problem):
    alone = Probe(problem, recipe=replace(RECIPE, distil_weight=0.0))
    assert alone(Proposal(CUT, 0.5), 0) != Probe(problem, recipe=RECIPE)(Proposal(CUT, 0.5), 0)


def test_examples_are_compared_as_many_as_asked_for(problem):
    assert "distance" not in Probe(problem, recipe=RECIPE, compared=0)(Proposal(CUT, 0.01), 0)
    few = Probe(problem, recipe=RECIPE, compared=5)
    assert sum(map(len, few._compared)) == 5


def test_a_look_runs_as_few_batches_as_are_compared_and_a_training_is_judged_on_all(problem):
    seen = []

    def counted():
        for inputs, target in problem.task.valid():
            for part in zip(inputs.split(8), target.split(8), strict=True):
                seen.append(1)
                yield part

    whole = sum(-(-len(inputs) // 8) for inputs, _ in problem.task.valid())
    probe = Probe(replace(problem, task=replace(problem.task, valid=counted)), recipe=RECIPE, compared=5)
    probe._compared  # noqa: B018 - read once
    seen.clear()
    probe(Proposal(CUT, 0.01), 0)
    assert len(seen) == 1 < whole
    seen.clear()
    probe(Proposal(CUT, 0.5), 0)
    assert len(seen) == whole


def test_a_metric_of_that_name_is_the_tasks(problem):
    metric = replace(problem.task.metric, name="distance")
    named = replace(problem, task=replace(problem.task, metrics=(problem.task.metric, metric)))
    found = Probe(named, recipe=RECIPE)(Proposal(CUT, 0.01), 0)
    assert found["distance"] == found[problem.task.metric.name]


def test_untrained_networks_are_trained_and_compared_with_nothing():
    space = Tiny(classes=2, size=8)
    problem = Problem(space, (Objective("hinge", "min"),), task=graded_task())
    found = Probe(problem, recipe=RECIPE)(Proposal(space.reference, 0.5), 0)
    assert "distance" not in found


def test_bad_settings_are_refused(problem):
    with pytest.raises(CapabilityError, match="needs a task"):
        Probe(replace(problem, task=None))
    for wrong in ({"untrained": 1.0}, {"examples": 0}, {"compared": -1}, {"batches": 0}):
        with pytest.raises(ConfigError, match="must be"):
            Probe(problem, **wrong)


def test_the_network_itself_stays_as_it_was(problem):
    before = {n: v.clone() for n, v in problem.space.whole.state_dict().items()}
    Probe(problem, recipe=RECIPE)(Proposal(CUT, 0.5), 0)
    assert all(torch.equal(v, before[n]) for n, v in problem.space.whole.state_dict().items())

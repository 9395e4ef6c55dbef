from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sartor.core.contracts import CostModel
from sartor.core.errors import CapabilityError, ConfigError, DataError
from sartor.core.records import Trial
from sartor.regions.compression import Worth

from strategies.searching import problem  # isort: skip


class Params(CostModel):
    metric = "params"

    def __init__(self, constant=2.0):
        self.constant = constant

    def __call__(self, archs):
        return torch.tensor([self.constant + sum(a) for a in archs], dtype=torch.float64)


def priced(*sizes, upper=None, goal="max", constant=2.0):
    plain = problem(*sizes, upper=upper, goal=goal)
    return replace(plain, costs={**plain.costs, "params": Params(constant)})


def trial(arch, accuracy, error=None):
    return Trial(0, arch, 1.0, {} if error else {"accuracy": accuracy}, error)


def test_by_hand():
    worth = Worth(priced(5, 5), "compression", 80.0)
    assert worth(trial((0, 0), 40.0)) == pytest.approx((1 - 0.2**2) * 0.5)
    assert worth(trial((4, 4), 80.0)) == 0.0
    assert not worth.unknown
    assert not worth.first


def test_the_teacher_comes_first():
    worth = Worth(priced(5, 5), "compression", 0.0)
    assert worth.unknown
    assert worth.reference == (4, 4)
    worth.meet([])
    assert worth.unknown
    worth.meet([trial((4, 4), 0.8), trial((0, 0), 0.1)])
    assert worth(trial((0, 0), 0.4)) == pytest.approx((1 - 0.2**2) * 0.5)
    worth.meet([trial((4, 4), 0.2)])
    assert worth.teacher == 0.8


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (priced(5), "compression"),
        (priced(5, upper=3), "feasible"),
        (problem(5), "feasible"),
        (priced(5, goal="min"), "feasible"),
    ],
)
def test_auto(given, kind):
    assert Worth(given, "auto", 0.0).kind == kind


def test_the_objective_alone():
    assert Worth(problem(5), "feasible", 0.0)(trial((1,), 0.3)) == 0.3
    assert Worth(problem(5, goal="min"), "feasible", 0.0)(trial((1,), 0.3)) == -0.3


@pytest.mark.parametrize("accuracy", [0.0, -1.0, math.nan, math.inf])
def test_a_teacher_that_knows_nothing(accuracy):
    with pytest.raises(DataError, match=r"the teacher's accuracy is .*; it must be positive: train it"):
        Worth(priced(5), "compression", 0.0).meet([trial((4,), accuracy)])


def test_a_teacher_that_fails():
    with pytest.raises(DataError, match=r"could not be evaluated \(out of memory\).*strategy.teacher"):
        Worth(priced(5), "compression", 0.0).meet([trial((4,), 0, "out of memory")])


@pytest.mark.parametrize("kind", ["compression", "feasible"])
def test_a_reward_that_is_no_number(kind):
    with pytest.raises(DataError, match="the reward of trial 0 is nan"):
        Worth(priced(5), kind, 0.5)(trial((1,), math.nan))


def test_problems_it_does_not_fit():
    with pytest.raises(ConfigError, match="no reward called 'soft'; known: auto, compression, feasible"):
        Worth(problem(5), "soft", 0.0)
    with pytest.raises(ConfigError, match="'accuracy' is minimised"):
        Worth(priced(5, goal="min"), "compression", 0.0)
    with pytest.raises(CapabilityError, match="'params'"):
        Worth(problem(5), "compression", 0.0)
    with pytest.raises(DataError, match="nothing to compress"):
        Worth(priced(5, constant=-4.0), "compression", 0.0)
    with pytest.raises(ConfigError, match="teacher is -1"):
        Worth(priced(5), "compression", -1.0)


def test_curves_are_rewards_too():
    worth = Worth(priced(5, 5), "compression", 80.0)
    a = Trial(0, (0, 0), 1.0, {"accuracy": 40.0, "accuracy_1": 10.0, "accuracy_2": 20.0, "accuracy_10": 41.0})
    b = Trial(1, (4, 4), 1.0, {"accuracy": 40.0, "accuracy_1": 10.0, "accuracy_best": 1.0})
    epochs = worth.epochs([a, b])
    assert epochs == [1, 2]  # the last one is the objective's own
    assert worth.curve(a, epochs) == pytest.approx([(1 - 0.2**2) * x for x in (0.125, 0.25, 0.5)])
    found = worth.curve(b, epochs)
    assert found[0] == found[2] == 0.0
    assert math.isnan(found[1])
    with pytest.raises(ConfigError, match=r"no trial reports accuracy_1, .*set curve = true in \[evaluator\]"):
        worth.epochs([trial((0, 0), 40.0)])

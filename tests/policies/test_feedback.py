from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from problems import small_problem
from sartor.core.errors import BudgetError, ConfigError
from sartor.core.records import Constraint, Objective, Trial
from sartor.policies.feedback import Feedback
from sartor.policies.softmax import Policy

SMALL = small_problem()


def policy():
    return Policy([len(c.options) for c in SMALL.space.choices], np.random.default_rng(0), lr=0.1)


def test_rewards_of_trials():
    arch, limits = (3, 3, 3), SMALL.limits()
    trial = Trial(0, arch, 1.0, {"accuracy": 80.0})
    ratios = [float(SMALL.costs[m]([arch])[0]) / upper for m, upper in limits.items()]
    assert min(ratios) > 1
    assert Feedback(SMALL, "feasible", 0.0, 1.0)(trial) == 80.0
    assert Feedback(SMALL, "mnas_hard", 0.0, 100.0)(trial) == pytest.approx(0.8 / np.prod(ratios))
    assert Feedback(SMALL, "absolute", -0.5, 100.0)(trial) == pytest.approx(0.8 - 0.5 * sum(r - 1 for r in ratios))
    error = replace(SMALL, objectives=(Objective("error", "min"),))
    assert Feedback(error, "feasible", 0.0, 1.0)(Trial(0, arch, 1.0, {"error": 0.2})) == -0.2


def test_draws_within_the_budget_and_the_rest_for_its_mass():
    feedback, rng, few = Feedback(SMALL, "feasible", 0.0, 1.0), np.random.default_rng(0), policy()
    drawn, inside = feedback.draw(few, rng, 9)
    assert len(drawn) == 9
    assert all(SMALL.feasible(a) for a in [*drawn, *map(tuple, inside.tolist())])
    assert 10 < len(inside) < 64
    drawn, inside = Feedback(SMALL, "absolute", 0.0, 1.0).draw(few, rng, 40)
    assert len(drawn) == 40
    assert not all(map(SMALL.feasible, drawn))
    assert len(inside) == 0
    loose = replace(SMALL, constraints=(Constraint("macs", 1e12),))
    drawn, inside = Feedback(loose, "feasible", 0.0, 1.0).draw(few, rng, 3)
    assert (len(drawn), len(inside)) == (3, 0)  # all of the draws are inside: the mass is 1


def test_a_policy_that_never_hits_is_repaired():
    stuck = policy()
    stuck.theta[0].reshape(3, -1)[:, 3] = 50.0
    drawn, inside = Feedback(SMALL, "feasible", 0.0, 1.0).draw(stuck, np.random.default_rng(0), 5)
    assert len(drawn) == 5
    assert all(map(SMALL.feasible, drawn))
    assert len(inside) == 0
    impossible = replace(SMALL, constraints=(Constraint("macs", 1.0),))
    with pytest.raises(BudgetError):
        Feedback(impossible, "feasible", 0.0, 1.0).draw(stuck, np.random.default_rng(0), 1)


def test_what_does_not_fit():
    with pytest.raises(ConfigError, match="no reward called 'soft'"):
        Feedback(SMALL, "soft", 0.0, 1.0)
    with pytest.raises(ConfigError, match="must be positive: 1 for fractions"):
        Feedback(SMALL, "absolute", 0.0, 0.0)
    with pytest.raises(ConfigError, match="'error' is minimised"):
        Feedback(replace(SMALL, objectives=(Objective("error", "min"),)), "mnas_soft", 0.0, 1.0)

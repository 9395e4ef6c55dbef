from __future__ import annotations

import numpy as np
import pytest

from problems import small_problem
from sartor.core.errors import ConfigError
from sartor.core.records import Trial
from sartor.strategies.reinforce import Reinforce

from strategies.searching import judged, problem, search  # isort: skip


def recorded(strategy):
    """The gradients that the strategy follows, without following them."""
    found = []
    strategy.policy.ascend = found.append
    return found


def test_the_update_is_the_analytic_gradient_of_two_options():
    """d log p(k) / d logit_j = [j = k] - p_j, weighed with the reward less its average."""
    strategy = Reinforce(problem(2), 0)
    strategy.policy.theta[0][:] = [0.3, -0.2]
    p = np.exp([0.3, -0.2]) / np.exp([0.3, -0.2]).sum()
    gradients = recorded(strategy)
    for option, reward in ((0, 5.0), (1, 8.0)):
        strategy.tell([Trial(0, (option,), 1.0, {"accuracy": reward})])
    average = (0.9 * 0.1 * 5 + 0.1 * 8) / 0.19
    assert np.allclose(gradients[0][0], 0)  # the first reward is its own average
    assert np.allclose(gradients[1][0], (8 - average) * np.array([-p[0], 1 - p[1]]))


def test_a_batch_is_a_mean():
    strategy, strategies = Reinforce(problem(3, 2), 0, momentum=0.0), []
    strategy.baseline.update = lambda reward: 1.0
    gradients = recorded(strategy)
    trials = [Trial(i, a, 1.0, {"accuracy": r}) for i, (a, r) in enumerate([((0, 1), 2.0), ((2, 0), 5.0)])]
    strategy.tell(trials)
    strategy.tell(trials[:1])
    strategy.tell(trials[1:])
    strategies = gradients[1][0] + gradients[2][0]
    assert np.allclose(gradients[0][0], strategies / 2)


def test_the_gradient_within_a_budget_is_that_of_the_restricted_policy():
    strategy = Reinforce(problem(4, 4, upper=2), 0)
    strategy.policy.theta[0][:] = np.linspace(-1, 1, 8)
    every = np.array([(a, b) for a in range(4) for b in range(4)])
    inside = every[every.sum(1) <= 2]
    probs = np.exp(strategy.policy.log_probs(inside, strategy.policy.probs(inside)))
    hot = np.concatenate([np.eye(4)[inside[:, 0]], np.eye(4)[inside[:, 1]]], 1)
    exact = np.concatenate([np.eye(4)[1], np.eye(4)[0]]) - probs / probs.sum() @ hot
    strategy.baseline.update = lambda reward: 0.0
    gradients = recorded(strategy)
    for _ in range(400):
        strategy._inside = strategy.feedback.draw(strategy.policy, strategy.rng, 1)[1]
        strategy.tell([Trial(0, (1, 0), 1.0, {"accuracy": 1.0})])
    assert np.allclose(np.mean([g[0] for g in gradients], 0), exact, atol=0.03)


def test_the_policy_converges_to_the_best_within_budget():
    strategy = Reinforce(problem(5, 5, upper=5), 0, trials=1500, lr=0.1)
    trials = search(strategy, lambda a: a[0] + 1.5 * a[1] + 10)
    assert all(sum(t.arch) <= 5 for t in trials)
    assert np.mean([t.arch == (1, 4) for t in trials[-100:]]) > 0.8


def test_the_initial_logits_and_the_step_are_nats_benchs():
    strategy = Reinforce(problem(50, 50), 0)
    assert strategy.policy.theta[0].std() == pytest.approx(1e-3, rel=0.3)
    before = strategy.policy.theta[0].copy()
    for reward in (0.0, 100.0):
        strategy.tell([Trial(0, (1, 1), 1.0, {"accuracy": reward})])
    assert strategy.policy.theta[0][1] - before[1] == pytest.approx(
        0.01 * 0.1 / 0.19 / (0.001 / 0.001999) ** 0.5, rel=1e-6
    )


def test_other_rewards_may_leave_the_budget():
    small = small_problem()
    free = Reinforce(small, 0, trials=60, batch=5, reward="absolute")
    assert (Reinforce(small, 0).within_limits, free.within_limits) == (True, False)
    trials = search(free, lambda a: 0.5)
    assert not all(small.feasible(t.arch) for t in trials)
    assert small.feasible(free.solve(small.limits()))


def test_failures_teach_nothing():
    strategy = Reinforce(problem(3), 0)
    gradients = recorded(strategy)
    strategy.tell(judged(strategy.ask(), lambda a: None))
    assert not gradients
    assert len(strategy.trials) == 1


@pytest.mark.parametrize("settings", [{"lr": 0.0}, {"momentum": 1.0}])
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError, match=r"lr must be positive, momentum in \[0, 1\)"):
        Reinforce(problem(2), 0, **settings)

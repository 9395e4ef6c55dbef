from __future__ import annotations

import numpy as np
import pytest

from sartor.core.errors import ConfigError
from sartor.core.records import Trial
from sartor.strategies.ppo import Ppo

from strategies.searching import judged, problem, search  # isort: skip


def logs(strategy, index):
    return strategy.policy.log_probs(index, strategy.policy.probs(index))


@pytest.mark.parametrize(
    ("shift", "gain", "moves"),
    [
        (0.0, 1.0, True),
        (0.17, 1.0, True),  # exp(0.17) = 1.185
        (0.19, 1.0, False),  # exp(0.19) = 1.209: clipped
        (0.19, -1.0, True),  # a worse one that became likelier is always pushed back
        (-0.21, -1.0, True),  # exp(-0.21) = 0.811
        (-0.23, -1.0, False),  # exp(-0.23) = 0.795: clipped
        (-0.23, 1.0, True),
    ],
)
def test_clipping_by_hand(shift, gain, moves):
    strategy = Ppo(problem(2), 0, entropy=0.0)
    strategy.policy.theta[0][:] = [0.4, 0.1]
    p = np.exp([0.4, 0.1]) / np.exp([0.4, 0.1]).sum()
    index = np.array([[0]])
    (gradient,) = strategy.surrogate(index, np.array([gain]), logs(strategy, index) - shift)
    wanted = np.exp(shift) * gain * np.array([1 - p[0], -p[1]]) if moves else np.zeros(2)
    assert np.allclose(gradient, wanted)


@pytest.mark.parametrize("autoregressive", [False, True])
def test_the_gradient_is_that_of_the_clipped_objective(autoregressive):
    """By differences, with a restricted policy: ratios are of p(arch) / p(inside)."""
    strategy = Ppo(problem(3, 3, upper=2), 0, entropy=0.0, autoregressive=autoregressive)
    rng = np.random.default_rng(0)
    drawn, inside = strategy.feedback.draw(strategy.policy, rng, 6)
    index, gains = np.concatenate([drawn, inside]), rng.standard_normal(6)
    old = logs(strategy, index)
    strategy.policy.theta[0] += 0.3 * rng.standard_normal(6)

    def objective():
        change = logs(strategy, index) - old
        ratios = np.exp(change[:6]) / np.exp(change[6:]).mean()
        return np.minimum(ratios * gains, ratios.clip(0.8, 1.2) * gains).mean()

    gradient = strategy.surrogate(index, gains, old)
    for theta, slope in zip(strategy.policy.theta, gradient, strict=True):
        for place in np.ndindex(theta.shape):
            if theta.ndim == 2 and not strategy.policy._earlier[place]:
                assert slope[place] == 0
                continue
            theta[place] += 1e-6
            above = objective()
            theta[place] -= 2e-6
            assert slope[place] == pytest.approx((above - objective()) / 2e-6, abs=1e-6)
            theta[place] += 1e-6


def test_advantages_by_hand():
    strategy = Ppo(problem(2), 0, updates=1, momentum=0.5)
    seen = []
    strategy.surrogate = lambda index, gains, old: seen.append(gains) or [np.zeros(2)]
    strategy.tell([Trial(i, (i,), 1.0, {"accuracy": r}) for i, r in enumerate((1.0, 4.0))])
    assert np.allclose(seen[0], [0.0, (4 - (0.25 * 1 + 0.5 * 4) / 0.75) / 1.5])
    strategy.tell([Trial(0, (0,), 1.0, {"accuracy": 3.0})])  # no spread to divide by
    assert np.isfinite(seen[1]).all()


def test_entropy_keeps_the_policy_open():
    likely = []
    for entropy in (0.0, 3.0):
        strategy = Ppo(problem(4, 4), 0, trials=400, entropy=entropy)
        search(strategy, sum)
        likely.append(strategy.policy.probs(np.zeros((1, 2), dtype=int)).max())
    assert likely[0] > 0.95
    assert likely[1] < 0.7


@pytest.mark.parametrize("autoregressive", [False, True])
def test_converges_within_budget(autoregressive):
    strategy = Ppo(problem(5, 5, upper=5), 0, trials=800, lr=0.1, autoregressive=autoregressive)
    trials = search(strategy, lambda a: a[0] + 1.5 * a[1] + 10)
    assert all(sum(t.arch) <= 5 for t in trials)
    assert np.mean([t.arch == (1, 4) for t in trials[-100:]]) > 0.8


def test_only_an_autoregressive_policy_learns_what_belongs_together():
    """Both choices alike or not: no independent policy is better than half right without choosing a side."""
    strategy = Ppo(problem(2, 2), 0, trials=600, lr=0.05, entropy=1.0, autoregressive=True)
    search(strategy, lambda a: float(a[0] == a[1]))
    first = strategy.policy.probs(np.array([[0, 0], [1, 0]]))[:, 1]
    assert first[0, 0] > 0.7
    assert first[1, 1] > 0.7


def test_failures_teach_nothing():
    strategy = Ppo(problem(3), 0)
    before = strategy.policy.theta[0].copy()
    strategy.tell(judged(strategy.ask(), lambda a: None))
    assert (strategy.policy.theta[0] == before).all()


@pytest.mark.parametrize("settings", [{"lr": 0.0}, {"clip": 0.0}, {"entropy": -1.0}, {"momentum": 1.0}])
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError, match="lr and clip must be positive"):
        Ppo(problem(2), 0, **settings)

from __future__ import annotations

import numpy as np
import pytest

from sartor.core.errors import ConfigError
from sartor.policies.feedback import Feedback
from sartor.policies.gradients import PolicyGradient

from strategies.searching import judged, problem, search  # isort: skip


class Recorder(PolicyGradient):
    """Learns nothing, and remembers what it might have learned from."""

    def __init__(self, checked, **settings):
        feedback = Feedback(checked, settings.pop("reward", "feasible"), 0.0, 1.0)
        super().__init__(checked, 0, feedback, **{"trials": 12, "batch": 5, "lr": 0.1, "momentum": 0.5, **settings})
        self.lessons = []

    def learn(self, index, gains, spread):
        self.lessons.append((index, gains, spread))


def test_networks_are_told_with_what_is_above_the_average_so_far():
    strategy = Recorder(problem(4, 4))
    trials = search(strategy, sum)
    assert len(trials) == 12
    assert [len(gains) for _, gains, _ in strategy.lessons] == [5, 5, 2]
    rewards = np.array([sum(t.arch) for t in trials[:5]], dtype=float)
    index, gains, spread = strategy.lessons[0]
    assert index.tolist() == [list(t.arch) for t in trials[:5]]
    assert gains[0] == 0  # the average of one is itself
    assert gains[1] == pytest.approx(rewards[1] - (0.25 * rewards[0] + 0.5 * rewards[1]) / 0.75)
    assert spread == pytest.approx(rewards.std())


def test_failed_networks_teach_nothing_and_draws_inside_come_along():
    strategy = Recorder(problem(9, 9, upper=8), trials=30)
    while proposals := strategy.ask():
        trials = judged(proposals, lambda a: None if a[0] % 2 else sum(a))
        before = len(strategy.lessons)
        strategy.tell(trials)
        good = [list(t.arch) for t in trials if t.ok]
        assert len(strategy.lessons) == before + bool(good)
        if good:
            index, gains, _ = strategy.lessons[-1]
            assert index[: len(good)].tolist() == good
            assert len(gains) == len(good)
            assert len(index) > len(good)
            assert (index.sum(1) <= 8).all()
    assert sum(strategy.solve({"sum": 8})) <= 8
    assert strategy.within_limits


def test_where_costs_are_in_the_reward_any_network_is_drawn():
    strategy = Recorder(problem(9, 9, upper=8), reward="absolute", trials=60)
    assert not strategy.within_limits
    assert any(sum(t.arch) > 8 for t in search(strategy, sum))


@pytest.mark.parametrize("settings", [{"trials": 0}, {"batch": 0}])
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError, match="at least 1"):
        Recorder(problem(2), **settings)

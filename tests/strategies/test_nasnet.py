from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from sartor.core.errors import ConfigError
from sartor.core.records import Trial
from sartor.strategies.nasnet import Nasnet
from sartor.strategies.random_search import RandomSearch

from strategies.searching import problem, search  # isort: skip

SIZES = (4,) * 7


def rugged(arch):
    return sum(((a * 3 + i) % 4) * (1 + i / 3) for i, a in enumerate(arch)) + 2.5 * (arch[0] == arch[3])


def test_finds_good_networks_sooner_than_random_draws():
    best = max(map(rugged, product(*map(range, SIZES))))

    def gap(cls, seed):
        return best - max(rugged(t.arch) for t in search(cls(problem(*SIZES), seed, trials=300), rugged))

    ours, random = ([gap(cls, seed) for seed in range(6)] for cls in (Nasnet, RandomSearch))
    assert np.mean(ours) < 0.7 * np.mean(random)


def test_a_step_makes_good_networks_likelier():
    strategy = Nasnet(problem(3, 3), 0, hidden=8)
    good, bad = np.array([[0, 1]]), np.array([[2, 2]])
    before = strategy._logs(good)[0] - strategy._logs(bad)[0]
    trials = [Trial(i, a, 1.0, {"accuracy": v}) for i, (a, v) in enumerate([((0, 1), 1.0), ((2, 2), 0.0)])]
    strategy.tell(trials)
    assert strategy._logs(good)[0] - strategy._logs(bad)[0] > before


def test_ratios_beyond_the_clip_pull_no_further():
    strategy, found = Nasnet(problem(3, 3), 0, hidden=8, clip=0.2, lr=1e-9, updates=1), []
    strategy.policy.ascend = lambda index, weights, entropy: found.append(weights)
    logs = strategy._logs
    calls = iter([np.zeros(4), np.log([1.3, 1.1, 0.7, 0.9])])
    strategy._logs = lambda index: next(calls)
    strategy._learn(np.array([[0, 0], [1, 1], [2, 2], [0, 1]]), np.array([1.0, 1.0, -1.0, -1.0]))
    assert found[0] == pytest.approx(np.array([0, 1.1, 0, -0.9]) / 4)
    assert logs(np.array([[0, 0]])).shape == (1,)


def test_choices_depend_on_those_before():
    """The best second option is the first one's: independent choices could not tell."""
    strategy = Nasnet(problem(4, 4, 1), 0, trials=16, hidden=16, lr=0.02)
    archs = list(product(range(4), range(4), [0]))
    trials = [Trial(i, a, 1.0, {"accuracy": float(a[0] == a[1])}) for i, a in enumerate(archs)]
    for _ in range(30):
        strategy.tell(trials)
        strategy.trials.clear()
    drawn = strategy.policy.draw(np.random.default_rng(0), 500)
    assert (drawn[:, 0] == drawn[:, 1]).mean() > 0.8
    assert len(set(drawn[:, 0].tolist())) > 1


def test_evaluates_every_network_once_and_then_ends():
    trials = search(Nasnet(problem(3, 3, 2), 0, trials=50, hidden=4), sum)
    assert sorted(t.arch for t in trials) == list(product(range(3), range(3), range(2)))


def test_failed_networks_teach_nothing():
    strategy = Nasnet(problem(3, 3), 0, hidden=4)
    before = strategy.state_dict()
    strategy.tell([Trial(0, (0, 0), 1.0, {}, "failed")])
    after = strategy.state_dict()
    assert before["baseline"] == after["baseline"]
    assert all((before["policy"]["net"][k] == v).all() for k, v in after["policy"]["net"].items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"lr": 0.0}, "lr is 0.0"), ({"momentum": 1.0}, "momentum 1.0"), ({"hidden": 0}, "hidden is 0")],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        Nasnet(problem(2, 2), 0, **settings)

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch

from sartor.core.contracts import CostModel, Problem
from sartor.core.errors import CapabilityError, ConfigError
from sartor.core.records import Objective, Trial
from sartor.strategies.block_qnn import PUBLISHED, SCHEDULES, BlockQnn
from sartor.strategies.random_search import RandomSearch

from strategies.searching import Plain, problem, search  # isort: skip

SIZES = (4, 4, 4, 4)


def rugged(arch):
    return sum(((a * 3 + i) % 4) * (1 + i / 3) for i, a in enumerate(arch)) + 2.5 * (arch[0] == arch[3])


def test_the_published_schedule():
    assert sum(n for _, n in PUBLISHED) == 178
    assert 64 * 178 == 11392
    strategy = BlockQnn(problem(2, 2), 0, trials=11392, schedule="published")
    assert [strategy.epsilon(64 * i) for i in (0, 94, 95, 101, 102, 177)] == [1.0, 1.0, 0.9, 0.9, 0.8, 0.1]
    assert strategy.epsilon(11392) == 0.1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_options_are_less_and_less_random(schedule):
    strategy = BlockQnn(problem(2, 2), 0, trials=100, schedule=schedule)
    values = [strategy.epsilon(i) for i in range(100)]
    assert values[0] == 1.0
    assert values[-1] == 0.1
    assert values == sorted(values, reverse=True)


def test_finds_good_networks_sooner_than_random_draws():
    best = max(map(rugged, product(*map(range, SIZES))))

    def gap(cls, seed):
        return best - max(rugged(t.arch) for t in search(cls(problem(*SIZES), seed, trials=60), rugged))

    ours, random = ([gap(cls, seed) for seed in range(15)] for cls in (BlockQnn, RandomSearch))
    assert np.mean(ours) < 0.5 * np.mean(random)


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "published", "batch": 64, "lr": 0.01, "scale": "none"},
        {"shaping": "maximum"},
        {"shaping": "none", "memory": 2},
    ],
)
def test_evaluates_every_network_once_and_then_ends(settings):
    trials = search(BlockQnn(problem(3, 3, 2), 0, trials=50, **settings), sum)
    assert sorted(t.arch for t in trials) == list(product(range(3), range(3), range(2)))


class Ended(Plain):
    """Option 0 ends a network: what comes after does not matter."""

    def canonical(self, arch):
        end = arch.index(0) if 0 in arch else len(arch)
        return (*arch[:end], *[0] * (len(arch) - end))


def test_the_length_is_where_nothing_matters_any_more():
    one = Problem(Ended(3, 3, 3, 3), (Objective("accuracy", "max"),))
    strategy = BlockQnn(one, 0)
    assert [strategy._length(a) for a in ((0, 0, 0, 0), (1, 0, 0, 0), (1, 2, 1, 0), (1, 1, 1, 1))] == [1, 2, 4, 4]


@pytest.mark.parametrize(("shaping", "parts"), [("length", 0.45), ("maximum", 0.225), ("none", 0.9)])
def test_shaping(shaping, parts):
    """A network of two options in a space of four choices; the last of them gets `parts`, times lr 1."""
    one = Problem(Ended(3, 3, 3, 3), (Objective("accuracy", "max"),))
    strategy = BlockQnn(one, 0, shaping=shaping, scale="none", lr=1.0, replay=1, perfect=100)
    strategy.tell([Trial(0, (1, 0, 0, 0), 1.0, {"accuracy": 0.9})])
    assert strategy.table.values((1,))[0] == pytest.approx(parts)
    assert strategy.table.values((1, 0)) == [0, 0, 0]


class Priced(CostModel):
    def __init__(self, metric, value):
        self.metric, self.value = metric, value

    def __call__(self, archs):
        return torch.tensor([self.value + a[0] for a in archs], dtype=torch.float64)


def test_the_reward_of_short_trainings():
    """`ACC - mu log(FLOPs) - rho log(density)`, ACC in per cent."""
    costs = {"macs": Priced("macs", 1000.0), "density": Priced("density", 1.5)}
    one = Problem(Plain(3, 3), (Objective("accuracy", "max"),), (), costs)
    strategy = BlockQnn(one, 0, mu=1.0, rho=8.0)
    found = strategy.reward(Trial(0, (1, 0), 1.0, {"accuracy": 0.8}))
    assert found == pytest.approx(80 - math.log(1001) - 8 * math.log(2.5))
    assert strategy.reward(Trial(0, (1, 0), 1.0, {}, "failed")) == -math.inf
    with pytest.raises(CapabilityError, match="density"):
        BlockQnn(problem(2, 2), 0, rho=1.0)


@pytest.mark.parametrize("scale", ["rank", "none"])
def test_failed_networks_are_learned_from(scale):
    """An option that always fails is drawn less and less."""
    failed = 0
    for seed in range(6):
        strategy = BlockQnn(problem(4, 4, 4, 4, 4), seed, trials=80, scale=scale)
        trials = search(strategy, lambda a: None if a[0] == 0 else (a[1] + a[2]) / 6)
        failed += sum(not t.ok for t in trials[20:])
    assert failed < 0.75 * 0.25 * 60 * 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, "lr is 0.0"),
        ({"discount": 1.5}, "discount 1.5"),
        ({"schedule": "long"}, "schedule is 'long'"),
        ({"scale": "log"}, "scale 'log'"),
        ({"replay": 0}, "replay is 0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        BlockQnn(problem(2, 2), 0, **settings)

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from problems import small_problem
from sartor.core.errors import ConfigError
from sartor.spaces.nats_topology import NatsTopology
from sartor.strategies.mcts import Mcts
from sartor.strategies.random_search import RandomSearch

from strategies.searching import Plain, problem, search  # isort: skip

SIZES = (4, 4, 4, 4)


def rugged(arch):
    """Effects and an effect of a pair."""
    return sum(((a * 3 + i) % 4) * (1 + i / 3) for i, a in enumerate(arch)) + 2.5 * (arch[0] == arch[3])


BEST = max(product(*map(range, SIZES)), key=rugged)


def until(cls, seed, **settings):
    """Evaluations until the best network is found."""
    trials = search(cls(problem(*SIZES), seed, trials=256, **settings), rugged)
    return next((i for i, t in enumerate(trials, 1) if t.arch == BEST), 256)


@pytest.mark.parametrize("share", ["none", "options", "model"])
def test_finds_the_best_network_sooner_than_random_draws(share):
    ours = [until(Mcts, seed, share=share, explore=0.1) for seed in range(12)]
    random = [until(RandomSearch, seed) for seed in range(12)]
    assert np.mean(ours) < 0.75 * np.mean(random)


def test_learned_regions_find_it_sooner_than_random_draws():
    settings = {"share": "none", "partition": "latent", "explore": 0.1}
    ours = [until(Mcts, seed, **settings) for seed in range(12)]
    assert np.mean(ours) < 0.75 * np.mean([until(RandomSearch, seed) for seed in range(12)])


@pytest.mark.parametrize("batch", [1, 4])
def test_learned_regions_go_on_from_the_trials_and_come_to_an_end(batch):
    settings = {"share": "none", "partition": "latent", "first": 6, "batch": batch}
    first = Mcts(problem(3, 3, 2), 0, trials=12, **settings)
    trials = search(first, sum)
    again = Mcts(problem(3, 3, 2), 0, trials=50, **settings)
    again.load_state_dict(first.state_dict())
    again.recall(trials)
    first.total = 50
    assert [p.arch for p in again.ask()] == [p.arch for p in first.ask()]
    every = search(Mcts(problem(3, 3, 2), 0, trials=50, **settings), sum)
    assert sorted(t.arch for t in every) == list(product(range(3), range(3), range(2)))


def test_the_model_is_what_makes_it_quick():
    ours = [until(Mcts, seed) for seed in range(8)]
    assert np.mean(ours) < 0.5 * np.mean([until(Mcts, seed, share="none") for seed in range(8)])


@pytest.mark.parametrize("share", ["none", "options", "model"])
@pytest.mark.parametrize("batch", [1, 4])
def test_evaluates_every_network_once_and_then_ends(share, batch):
    trials = search(Mcts(problem(3, 3, 2), 0, trials=50, batch=batch, share=share, first=4), sum)
    assert sorted(t.arch for t in trials) == list(product(range(3), range(3), range(2)))


@pytest.mark.parametrize("share", ["none", "options", "model"])
def test_names_of_one_network_are_one(share):
    class Merged(Plain):
        def canonical(self, arch):
            return tuple(sorted(arch))

    one = problem(4, 4, 4)
    object.__setattr__(one, "space", Merged(4, 4, 4))
    trials = search(Mcts(one, 0, trials=50, share=share), sum)
    assert len({t.arch for t in trials}) == len(trials) == 20


@pytest.mark.parametrize("share", ["none", "options", "model"])
def test_fails_and_goes_on(share):
    """Failures are as bad as the worst, also those before anything has succeeded."""
    trials = search(
        Mcts(problem(4, 4, 4), 0, trials=64, share=share),
        lambda a: None if a[0] == 0 else 10.0 * a[1] - 100,
    )
    assert len(trials) == 64
    early = sum(not t.ok for t in trials[4:36])
    assert early < 8  # as many would be by chance


@pytest.mark.parametrize("share", ["none", "options"])
def test_a_tree_is_rebuilt_from_the_trials(share):
    """The next proposals do not depend on paths that were closed on the way."""
    one = problem(*SIZES)
    object.__setattr__(one, "space", NatsTopology())
    first = Mcts(one, 3, trials=80, share=share)
    trials = search(first, sum)
    again = Mcts(one, 3, trials=90, share=share)
    again.load_state_dict(first.state_dict())
    again.recall(trials)
    first.total = 90
    assert [p.arch for p in again.ask()] == [p.arch for p in first.ask()]


@pytest.mark.parametrize("share", ["none", "options", "model"])
def test_stays_inside_limits(share):
    one = small_problem()
    trials = search(Mcts(one, 0, trials=30, share=share), sum)
    assert trials
    assert all(one.feasible(t.arch) for t in trials)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": "all"}, "share is 'all'; it must be none, options or model"),
        ({"partition": "latent"}, "partition is choices, or latent with share = 'none'"),
        ({"explore": -1.0}, "explore is -1.0"),
        ({"equivalence": 0.0}, "equivalence"),
        ({"playouts": 0}, "playouts is 0; it must be at least 1"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        Mcts(problem(2, 2), 0, **settings)

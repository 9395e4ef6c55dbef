from __future__ import annotations

from itertools import product

import pytest

from sartor.core.errors import ConfigError
from sartor.strategies.local_search import LocalSearch

from strategies.searching import problem, search  # isort: skip


def around(arch, sizes):
    return [(*arch[:i], k, *arch[i + 1 :]) for i, n in enumerate(sizes) for k in range(n) if k != arch[i]]


def climb(start, sizes, score):
    """The walk of the paper's algorithm, and the number of different networks that it evaluates."""
    walk, seen = [start], {start}
    while True:
        seen.update(around(walk[-1], sizes))
        best = max(around(walk[-1], sizes), key=score)
        if score(best) <= score(walk[-1]):
            return walk, len(seen)
        walk.append(best)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("seed", range(4))
def test_climbs_to_the_local_optimum_with_the_exact_number_of_evaluations(batch, seed):
    sizes = (4, 5, 3, 4)

    def score(arch):  # all different
        return sum((a * 7 + i * 3 + 1) % 5 + 0.01 * a * 4**i for i, a in enumerate(arch)) + (arch[0] ^ arch[3]) * 0.7

    strategy, incumbents = LocalSearch(problem(*sizes), seed, trials=240, batch=batch), []
    trials = search(strategy, score, after=lambda _: incumbents.append(strategy.incumbent))
    walk, evaluations = climb(trials[0].arch, sizes, score)
    assert len(walk) > 1
    first = trials[:evaluations]
    assert max(first, key=lambda t: score(t.arch)).arch == walk[-1]
    assert {t.arch for t in first} == {walk[0]} | {n for a in walk for n in around(a, sizes)}
    assert list(dict.fromkeys(i for i in incumbents if i is not None))[: len(walk)] == walk
    assert trials[evaluations].arch not in {t.arch for t in first}  # a restart


def test_the_order_of_neighbours_is_random():
    orders = [[t.arch for t in search(LocalSearch(problem(9), seed, trials=9), sum)][1:4] for seed in range(6)]
    assert len({tuple(o) for o in orders}) == 6


def test_first_moves_at_once():
    strategy = LocalSearch(problem(4, 4, 4, 4), 3, trials=60, move="first")
    best = []

    def score(arch):
        return sum(a * 4**i for i, a in enumerate(arch))

    def look(batch):
        best.append(max([score(t.arch) for t in batch] + best[-1:]))
        if strategy.incumbent is not None and best[-1] < score((3, 3, 3, 3)):
            assert score(strategy.incumbent) == best[-1]

    trials = search(strategy, score, after=look)
    assert strategy.solve({}) == (3, 3, 3, 3)
    assert len(trials) == 60


def test_nothing_is_evaluated_twice_and_a_small_space_is_exhausted():
    trials = search(LocalSearch(problem(3, 4, upper=4), 0, trials=100), lambda a: (a[0] * 5 + a[1] * 3) % 7)
    assert sorted(t.arch for t in trials) == [a for a in product(range(3), range(4)) if sum(a) <= 4]


def test_adjacent_steps_of_ordered_choices():
    strategy = LocalSearch(problem(30, ordered=True), 0, trials=30, step="adjacent")
    trials = search(strategy, lambda a: -abs(a[0] - 11))
    start = trials[0].arch[0]
    wanted = set(range(max(min(start, 11) - 1, 0), min(max(start, 11) + 2, 30)))
    assert {t.arch[0] for t in trials[: len(wanted)]} == wanted


def test_the_best_of_several_starts():
    strategy = LocalSearch(problem(50, 2), 0, trials=12, batch=4, starts=10)
    trials = search(strategy, lambda a: a[0])
    assert (
        trials[10].arch[0] == max(t.arch[0] for t in trials[:10])
        or trials[10].arch[1] == max(trials[:10], key=lambda t: t.arch[0]).arch[1]
    )


def test_failures_are_passed_over():
    strategy = LocalSearch(problem(4, 4, 4), 0, trials=64, batch=3)
    trials = search(strategy, lambda a: None if sum(a) % 3 == 1 else sum(a))
    assert len(trials) == 64
    assert strategy.solve({}) == (3, 3, 3)


@pytest.mark.parametrize("settings", [{"move": "worst"}, {"step": "far"}])
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError, match="best or first, and any or adjacent"):
        LocalSearch(problem(2), 0, **settings)

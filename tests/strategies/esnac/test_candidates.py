from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sartor.core.abilities import Scalable
from sartor.core.errors import BudgetError, ConfigError
from sartor.core.moves import Moves
from sartor.regions.region import Region
from sartor.strategies.esnac.candidates import Candidates

from strategies.searching import Plain, problem  # isort: skip


def total(archs):
    return torch.tensor([float(sum(a)) for a in archs])


def test_draws_are_new_different_and_within_budget():
    region = Region(problem(6, 6, 6, upper=7))
    seen = {(0, 0, 0), (1, 1, 1)}
    drawn = Candidates(region).draw(60, np.random.default_rng(0), seen)
    assert len(drawn) == len(set(drawn)) == 60
    assert all(sum(a) <= 7 and a not in seen for a in drawn)


class Even(Plain, Scalable):
    def scaled(self, factor):
        return tuple(round(factor * (len(c.options) - 1)) for c in self.choices)


def test_the_first_networks_may_be_narrowed_evenly():
    """Those that are new and within the budget, the widest first; random ones make up the number."""
    region = Region(replace(problem(11, 11, upper=13), space=Even(11, 11)))
    first = Candidates(region, narrowed=4)
    drawn = first.first(6, np.random.default_rng(0), {(4, 4)})
    assert drawn[:2] == [(6, 6), (2, 2)]  # of 8, 6, 4 and 2
    assert len(set(drawn)) == 6
    assert all(sum(a) <= 13 for a in drawn)
    assert first.first(1, np.random.default_rng(0), set()) == [(6, 6)]
    plain = Candidates(region)
    assert plain.first(5, np.random.default_rng(3), set()) == plain.draw(5, np.random.default_rng(3), set())


def test_narrowed_networks_of_a_space_that_has_none():
    for space, narrowed in ((Plain(3), 2), (Even(3), -1)):
        with pytest.raises(ConfigError, match=f"narrowed is {narrowed}"):
            Candidates(Region(replace(problem(3), space=space)), narrowed=narrowed)


def test_a_short_list_is_not_drawn_from_for_long():
    """Twelve networks, a thousand wanted: two blocks of draws, not sixteen."""

    class Counting(Moves):
        calls = 0

        def draw(self, rng):
            self.calls += 1
            return super().draw(rng)

    space = Plain(12)
    space.moves = Counting(space.choices, space.canonical)
    drawn = Candidates(Region(replace(problem(2), space=space))).draw(1000, np.random.default_rng(0), {(0,)})
    assert len(drawn) == 11
    assert space.moves.calls < 2500


def test_a_space_that_draws_is_asked():
    class Even(Moves):
        def draw(self, rng):
            return tuple(2 * int(k) for k in rng.integers(3, size=3))

    space = Plain(6, 6, 6)
    space.moves = Even(space.choices, space.canonical)
    region = Region(replace(problem(2), space=space))
    drawn = Candidates(region).draw(20, np.random.default_rng(0), {(0, 0, 0)})
    assert len(set(drawn)) == 20
    assert all(k % 2 == 0 for a in drawn for k in a)


def test_fewer_where_few_are_left():
    region, every = Region(problem(3, 3, upper=2)), {(i, j) for i in range(3) for j in range(3) if i + j <= 2}
    candidates = Candidates(region)
    assert set(candidates.draw(50, np.random.default_rng(0), {(0, 0)})) == every - {(0, 0)}
    assert candidates.draw(5, np.random.default_rng(0), every) == []
    pool, scores = candidates.pool(5, np.random.default_rng(0), every, [(0, 0)], total)
    assert pool == []
    assert len(scores) == 0


def test_all_networks_of_a_list_are_drawn_before_any_twice():
    class Few(Moves):
        members = ((0, 1), (2, 2), (1, 1), (2, 0))

    space = Plain(3, 3)
    space.moves = Few(space.choices, space.canonical)
    candidates = Candidates(Region(replace(problem(2, upper=3), space=space)))
    assert set(candidates.draw(9, np.random.default_rng(0), {(1, 1)})) == {(0, 1), (2, 0)}
    firsts = {candidates.draw(1, np.random.default_rng(seed), ())[0] for seed in range(20)}
    assert firsts == {(0, 1), (1, 1), (2, 0)}


def test_what_was_drawn_already_is_taken():
    candidates = Candidates(Region(problem(6, 6, 6)))
    given = candidates.draw(20, np.random.default_rng(0), ())
    pool, scores = candidates.pool(20, np.random.default_rng(1), {given[3]}, [], total, given)
    assert pool == [a for a in given if a != given[3]]
    assert torch.equal(scores, total(pool))
    again, _ = candidates.pool(20, np.random.default_rng(1), set(given), [], total, given)
    assert len(again) == 20
    assert not set(again) & set(given)


def test_a_budget_that_rejection_never_meets():
    region = Region(problem(*[9] * 7, upper=1))
    assert Candidates(region).draw(3, np.random.default_rng(0), ())
    with pytest.raises(BudgetError):
        Candidates(Region(problem(4, 4, upper=-1))).draw(3, np.random.default_rng(0), ())


@pytest.mark.parametrize("ordered", [False, True])
def test_mutations_climb(ordered):
    """Eight choices of ten options: 400 random networks are not near the best, 200 and their children are nearer."""
    plain = Region(problem(*[10] * 8, upper=60, ordered=ordered))
    best = []
    for local in (False, True):
        runs = [
            Candidates(plain, local=local).pool(400, np.random.default_rng(seed), (), [(5,) * 8], total)
            for seed in range(10)
        ]
        assert all(len(pool) == len(set(pool)) == len(scores) <= 400 for pool, scores in runs)
        assert all(torch.equal(total(pool), scores) and scores.max() <= 60 for pool, scores in runs)
        best.append(np.mean([float(scores.max()) for _, scores in runs]))
    assert best[1] > best[0] + 1


def test_a_space_of_one_network():
    candidates = Candidates(Region(problem(1, 1)), local=True)
    assert candidates.pool(8, np.random.default_rng(0), (), [], total)[0] == [(0, 0)]


def test_two_good_networks_are_crossed():
    """Children of (0, 0, ...) and (9, 9, ...) with three choices of each or more: mutations change two at most."""
    region = Region(problem(*[10] * 8))
    two = [(0,) * 8, (9,) * 8]

    def extreme(archs):  # better the more choices are at an end, so that the two are always the parents
        return torch.tensor([100.0 if a in two else -float(sum(0 < k < 9 for k in a)) for a in archs])

    pool, _ = Candidates(region, local=True).pool(400, np.random.default_rng(0), (), two, extreme)
    crossed = [a for a in pool if a.count(0) >= 3 and a.count(9) >= 3]
    assert len(crossed) > 5

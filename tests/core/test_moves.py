from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from sartor import archs
from sartor.core.contracts import Space
from sartor.core.moves import Moves
from sartor.core.records import Choice
from sartor.core.rng import numpy_rng


class Plain(Space):
    """An ordered choice, an unordered one and one without freedom; `mirror` makes (1, x, 0) the same as (0, x, 0)."""

    def __init__(self, mirror=False):
        self.mirror = mirror
        self.choices = (Choice("depth", (1, 2, 4, 8), ordered=True), Choice("op", ("a", "b", "c")), Choice("one", (0,)))

    def build(self, arch):
        return nn.Identity()

    def canonical(self, arch):
        return (0, *arch[1:]) if self.mirror and arch[0] == 1 else arch


def test_draws_are_uniform():
    rng, space = numpy_rng(0), Plain()
    seen = Counter(space.moves.draw(rng) for _ in range(12_000))
    assert len(seen) == 12
    assert all(abs(n - 1000) < 5 * 1000**0.5 for n in seen.values())


@pytest.mark.parametrize("mirror", [False, True])
def test_vary_draws_every_neighbour_and_nothing_else(mirror):
    space, rng = Plain(mirror), numpy_rng(0)
    for arch in archs.enumerate_all(space):
        drawn = {space.moves.vary(arch, rng) for _ in range(200)}
        assert drawn - {arch} == set(space.moves.neighbours(arch))


def test_neighbours_by_brute_force():
    space = Plain()

    def near(a, b):
        changed = [i for i in range(3) if a[i] != b[i]]
        return len(changed) == 1 and (changed[0] != 0 or abs(a[0] - b[0]) == 1)

    for arch in archs.enumerate_all(space):
        found = space.moves.neighbours(arch)
        assert len(found) == len(set(found))
        assert set(found) == {b for b in archs.enumerate_all(space) if near(arch, b)}


def test_neighbours_are_canonical_and_never_the_arch_itself():
    space = Plain(mirror=True)
    assert (1, 0, 0) not in space.moves.neighbours((0, 0, 0))
    assert (0, 0, 0) not in space.moves.neighbours((0, 0, 0))
    assert (0, 1, 0) in space.moves.neighbours((2, 1, 0))


def test_a_plain_space_is_no_list():
    assert Plain().moves.members == ()


def test_preferences_mean_the_most_preferred_option_of_every_choice():
    preferences = [torch.tensor([-3.0, -0.5, -2.0, -0.5]), torch.tensor([0.1, 0.2, 0.7]), torch.zeros(1)]
    assert Plain().moves.derive(preferences) == (1, 2, 0)
    assert Plain(mirror=True).moves.derive(preferences) == (0, 2, 0)


class Timid(Moves):
    def draw(self, rng):
        return (int(rng.integers(2)), 1, 0)


def test_a_space_may_have_moves_of_its_own():
    class Careful(Plain):
        @property
        def moves(self):
            return Timid(self.choices, self.canonical)

    given = Plain()
    given.moves = Timid(given.choices, given.canonical)
    for space in (Careful(), given):
        rng = numpy_rng(0)
        assert {space.moves.draw(rng) for _ in range(20)} == {(0, 1, 0), (1, 1, 0)}
        assert not space.moves.uniform
        assert space.moves.neighbours((0, 0, 0)) == Plain().moves.neighbours((0, 0, 0))
    assert Plain().moves.uniform

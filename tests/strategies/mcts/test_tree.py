from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from sartor.strategies.mcts.tree import Tree

SIZES = (3, 2, 4)


def everything(prefix):
    return list(range(SIZES[len(prefix)]))


def score(arch):
    return arch[0] * 2.0 - arch[1] + 0.1 * arch[2]


@pytest.mark.parametrize("equivalence", [0.0, 5.0])
def test_every_network_comes_once(equivalence):
    tree, rng, seen = Tree(SIZES, everything, 0.5, equivalence), np.random.default_rng(0), []
    while (arch := tree.descend(rng)) is not None:
        seen.append(arch)
        tree.learn(arch, score(arch))
    assert sorted(seen) == list(product(*map(range, SIZES)))


def test_good_branches_are_visited_more_often():
    def visits(explore):
        tree, rng = Tree((2, 50), lambda p: range(2 if not p else 50), explore, 0.0), np.random.default_rng(0)
        for _ in range(40):
            arch = tree.descend(rng)
            tree.learn(arch, float(arch[0]))
        return tree.root.counts

    poor, good = visits(0.1)
    assert good > 4 * poor > 0
    assert visits(2.0)[0] > poor


def test_the_bound_is_that_of_the_paper():
    """Mean + c sqrt(ln N / n) over rewards in [0, 1]: Kocsis and Szepesvari."""
    tree = Tree((2, 9), lambda p: range(2 if not p else 9), 0.7, 0.0)
    for arch, reward in (((0, 0), 1.0), ((0, 1), 3.0), ((1, 0), 5.0)):
        tree.learn(arch, reward)
    assert tree._bound(tree.root, 0, 0) == pytest.approx(0.25 + 0.7 * np.sqrt(np.log(3) / 2))
    assert tree._bound(tree.root, 0, 1) == pytest.approx(1.0 + 0.7 * np.sqrt(np.log(3)))


def test_branches_share_what_options_are_worth():
    """In a branch where nothing is known, the option that was best elsewhere comes first."""
    tree = Tree((2, 3), lambda p: range(2 if not p else 3), 0.0, 10.0)
    for option, reward in enumerate((0.0, 1.0, 0.2)):
        tree.learn((0, option), reward)
    assert all(tree.descend(np.random.default_rng(seed)) == (1, 1) for seed in range(5))


def test_ends_that_do_not_fit_are_left_out_for_good():
    tree, rng = Tree(SIZES, everything, 0.5, 0.0), np.random.default_rng(1)
    seen = set()
    while (arch := tree.descend(rng, lambda a: sum(a) % 2 == 0, 1000)) is not None:
        assert arch not in seen
        seen.add(arch)
        tree.learn(arch, score(arch))
    assert seen == {a for a in product(*map(range, SIZES)) if sum(a) % 2 == 0}


def test_the_path_does_not_depend_on_what_was_closed_before():
    def fits(arch):
        return (arch[0] * 5 + arch[1] * 3 + arch[2]) % 3 > 0

    used, fresh = (Tree(SIZES, everything, 0.4, 0.0) for _ in range(2))
    for arch in ((0, 0, 1), (2, 1, 3), (1, 1, 0)):
        used.learn(arch, score(arch))
    for seed in range(50):
        used.descend(np.random.default_rng(seed), fits, 100)
    for arch in ((0, 0, 1), (2, 1, 3), (1, 1, 0)):
        fresh.learn(arch, score(arch))
    for seed in range(20):
        rngs = [np.random.default_rng(100 + seed) for _ in range(2)]
        assert used.descend(rngs[0], fits, 100) == fresh.descend(rngs[1], fits, 100)


def test_a_branch_without_a_way_on_is_left():
    def opened(prefix):
        return [] if prefix == (1,) else range((2, 2)[len(prefix)])

    tree, rng = Tree((2, 2), opened, 0.5, 0.0), np.random.default_rng(0)
    found = [tree.descend(rng, tries=10) for _ in range(20)]
    assert {arch[0] for arch in found} == {0}

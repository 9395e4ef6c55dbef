from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from sartor.strategies.mcts.latent import Partition

SIZES = (4, 4, 3)
EVERY = list(product(*map(range, SIZES)))


def worth(arch):
    return 2.0 * arch[0] - arch[1] + (arch[2] == 1)


def partition(archs=EVERY, depth=3, score=worth, **settings):
    return Partition(SIZES, archs, [score(a) for a in archs], depth=depth, **settings)


def test_a_split_is_at_the_mean_of_the_predictions_of_a_linear_model():
    """The rewards are linear in the options: so what is predicted to be good is what is above the mean."""
    root = partition(depth=1).root
    made = partition(depth=1)
    mean = np.mean([worth(a) for a in EVERY])
    for arch in EVERY:
        if abs(worth(arch) - mean) > 0.2:
            assert root.side(made.row(arch)) == (worth(arch) > mean)
    assert root.children[1].mean > root.children[0].mean


def test_leaves_hold_all_networks_once_and_no_fewer_than_the_least():
    made = partition(depth=4, least=4)
    leaves = list(made.leaves())
    assert sum(leaf.count for leaf in leaves) == len(EVERY)
    assert min(leaf.count for leaf in leaves) >= 4
    assert len(leaves) > 4


def test_without_exploration_the_path_is_to_the_good():
    made = partition()
    path = made.path(0.0)
    assert [side for _, side in path] == [1] * len(path)
    best = max(EVERY, key=worth)
    assert made.reached(best, path) == len(path)
    assert made.reached(min(EVERY, key=worth), path) == 0


def test_much_exploration_looks_at_the_rare():
    few = [a for a in EVERY if worth(a) > 2] + [a for a in EVERY if worth(a) < -1][:6]
    made = partition(few, depth=1, least=2)
    counts = [child.count for child in made.root.children]
    assert counts[0] != counts[1]
    assert made.path(100.0)[0][1] == int(np.argmin(counts))


@pytest.mark.parametrize("archs", [EVERY[:6], EVERY])
def test_equal_rewards_split_nothing(archs):
    made = partition(archs, score=lambda a: 1.0)
    assert all(np.isfinite(leaf.mean) for leaf in made.leaves())
    assert partition(EVERY[:6], least=5).root.children == ()

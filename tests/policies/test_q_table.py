from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from sartor.core.errors import ConfigError
from sartor.policies.q_table import QTable, shaped


def test_an_update_by_hand():
    """r_T = 0.9 in three parts of 0.3; the last option first, each with the best that follows (alpha 0.5)."""
    table = QTable((2, 2, 2), lr=0.5, discount=1.0, memory=1)
    table.update((0, 1, 0), shaped(0.9, 3, 3))
    assert table.values((0, 1)) == pytest.approx([0.15, 0])
    assert table.values((0,)) == pytest.approx([0, 0.5 * (0.3 + 0.15)])
    assert table.values(()) == pytest.approx([0.5 * (0.3 + 0.225), 0])
    table.update((0, 1, 1), shaped(1.8, 3, 3))  # what follows is worth its best option, 0.3
    assert table.values((0, 1)) == pytest.approx([0.15, 0.3])
    assert table.values((0,))[1] == pytest.approx(0.5 * 0.225 + 0.5 * (0.6 + 0.3))


def test_the_parts_over_the_length_and_over_the_maximum():
    assert shaped(0.9, 3, 3) == pytest.approx([0.3] * 3)
    assert shaped(0.9, 3, 9) == pytest.approx([0.1] * 3)


def test_a_short_episode_leaves_later_choices_alone():
    table = QTable((2, 2, 2), lr=1.0, discount=1.0, memory=1)
    table.update((1, 0, 1), [1.0])
    assert table.values(()) == [0.0, 1.0]
    assert table.values((1,)) == [0.0, 0.0]


def test_it_learns_the_best_network_of_known_rewards():
    sizes, rng = (3, 4, 2, 3), np.random.default_rng(0)
    archs = list(product(*map(range, sizes)))
    worth = {a: (2.0 * (a[0] == a[1]) + a[2] * (a[1] == 1) + 0.3 * a[3]) / 4 for a in archs}
    table = QTable(sizes, lr=0.2, discount=1.0, memory=3)
    for _ in range(200):
        for i in rng.permutation(len(archs)).tolist():
            table.update(archs[i], [0.0, 0.0, 0.0, worth[archs[i]]])
    path = ()
    while len(path) < 4:
        path = (*path, int(np.argmax(table.values(path))))
    assert path == max(archs, key=worth.__getitem__)


@pytest.mark.parametrize("memory", [1, 2, 3])
def test_states_are_the_last_options(memory):
    table = QTable((3, 3, 3, 3), lr=1.0, discount=1.0, memory=memory)
    table.update((0, 1, 2, 1), [0, 0, 0, 1.0])
    for prefix in product(range(3), repeat=3):
        assert (table.values(prefix)[1] == 1.0) == (prefix[3 - memory :] == (0, 1, 2)[3 - memory :])


def test_state_goes_around():
    one, other = (QTable((2, 3), lr=0.5, discount=0.9, memory=1) for _ in range(2))
    one.update((1, 2), [0.1, 0.7])
    other.load_state_dict(one.state_dict())
    assert [other.values(p) for p in ((), (0,), (1,))] == [one.values(p) for p in ((), (0,), (1,))]


def test_too_many_states_are_refused():
    with pytest.raises(ConfigError, match=r"memory is 4, for which the table needs .* take a smaller one"):
        QTable((100,) * 5, lr=0.1, discount=1.0, memory=4)

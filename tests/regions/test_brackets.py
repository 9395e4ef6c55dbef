from __future__ import annotations

from itertools import count

import pytest

from sartor.core.errors import ConfigError
from sartor.regions.brackets import Brackets, Rung, bracket, hyperband, steps


def test_the_papers_table():
    """Hyperband's table for R = 81 and eta = 3."""
    assert steps(1 / 81, 3) == 4
    found = [[(r.count, round(81 * r.fidelity)) for r in rungs] for rungs in hyperband(4, 3)]
    assert found == [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]
    assert all(rungs[-1].fidelity == 1.0 for rungs in hyperband(4, 3))


@pytest.mark.parametrize(("least", "eta", "s"), [(1.0, 3, 0), (0.5, 3, 0), (1 / 9, 3, 2), (0.12, 3, 1), (0.001, 2, 9)])
def test_steps(least, eta, s):
    assert steps(least, eta) == s


def test_a_bracket_ends_where_nobody_is_left():
    assert bracket(4, 2, 3) == [Rung(4, 3.0**-2), Rung(1, 3.0**-1)]


@pytest.mark.parametrize(("least", "eta"), [(0.0, 3), (1.5, 3), (0.5, 1)])
def test_out_of_range(least, eta):
    with pytest.raises(ConfigError, match=r"least must be in \(0, 1\], eta at least 2"):
        steps(least, eta)


def walk(brackets, batch, asks, loss):
    numbers, asked = count(), []
    for _ in range(asks):
        proposals = brackets.ask(batch, lambda: (next(numbers),))
        asked += [(p.arch[0], p.fidelity) for p in proposals]
        brackets.tell([(p.arch, loss(p.arch[0])) for p in proposals])
    return asked


def test_the_best_are_promoted_and_the_next_bracket_follows():
    brackets = Brackets([bracket(9, 2, 3), bracket(2, 0, 3)])
    asked = walk(brackets, 4, 7, lambda n: abs(n - 4.2))  # a batch ends with its rung
    low, middle, high = 3.0**-2, 3.0**-1, 1.0
    first = [(n, low) for n in range(9)]
    assert asked == [
        *first,
        (4, middle),
        (5, middle),
        (3, middle),
        (4, high),
        (9, high),
        (10, high),
        *[(n, low) for n in range(11, 15)],
    ]


def test_failures_are_not_promoted():
    brackets = Brackets([bracket(9, 2, 3)])
    asked = walk(brackets, 9, 3, lambda n: float("inf") if n != 7 else 0.0)
    assert asked[9:] == [(7, 3.0**-1), (7, 1.0)]
    brackets = Brackets([bracket(9, 2, 3)])
    assert len(walk(brackets, 9, 2, lambda n: float("inf"))) == 18  # nobody is left: a new bracket
    assert brackets.at == (0, 0)


def test_the_state_brings_everything_back():
    brackets, other = Brackets([bracket(9, 2, 3)]), Brackets([bracket(9, 2, 3)])
    walk(brackets, 2, 6, float)
    other.load_state_dict(brackets.state_dict())
    assert brackets.at == (0, 1)
    assert walk(other, 2, 5, float) == walk(brackets, 2, 5, float)

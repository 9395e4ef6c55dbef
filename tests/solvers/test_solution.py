import dataclasses

import pytest

from sartor.solvers.solution import Solution


def test_a_solution_is_a_value():
    a, b = (Solution((0, 1), 0.5, (2.0,), 0.5, True, 0.1, 7) for _ in range(2))
    assert a == b
    assert hash(a) == hash(b)
    with pytest.raises(dataclasses.FrozenInstanceError):
        a.loss = 0.0

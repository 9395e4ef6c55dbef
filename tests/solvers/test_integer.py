import numpy as np
import pytest

from sartor.core.errors import BudgetError
from sartor.solvers import brute, integer
from solvers.instances import chain_edges, reachable_limit, tables


def test_the_two_oracles_agree():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        loss, cost = tables(rng, [3, 2, 4], [(0, 2)]), tables(rng, [3, 2, 4], chain_edges(3))
        limit = reachable_limit(rng, cost, brute.archs(cost)) + 1e-4
        found, oracle = (m.optimum(loss, [(cost, limit)]) for m in (integer, brute))
        assert (found.arch, found.optimal) == (oracle.arch, True)
        assert found.loss == oracle.loss
        assert found.bound == pytest.approx(oracle.loss, abs=1e-6)


def test_nothing_fits():
    t = tables(np.random.default_rng(0), [2, 2], [])
    with pytest.raises(BudgetError, match="no arch"):
        integer.optimum(t, [(t, -1.0)])

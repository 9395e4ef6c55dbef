import numpy as np
import pytest

from sartor.solvers import brute
from sartor.solvers.relaxation import Model, Terms, dual
from solvers.instances import chain_edges, reachable_limit, tables


def test_terms_give_the_number_of_tables_bit_for_bit():
    rng = np.random.default_rng(0)
    t = tables(rng, [3, 4, 3], [(0, 2), (0, 1)])
    assert [Terms.of(t)(a) for a in brute.archs(t)] == t(brute.archs(t)).tolist()


@pytest.mark.parametrize("bounds", [1, 2, 3])
def test_the_best_multipliers_beat_every_other(bounds):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        loss, *costs = (tables(rng, [4] * 4, chain_edges(4)) for _ in range(1 + bounds))
        every = brute.archs(loss)
        arch = every[int(rng.integers(len(every)))]
        model = Model.of(loss, [(c, c.cost(arch)) for c in costs])
        found = dual(model)
        assert found.bound <= loss.cost(arch) + 1e-9
        assert found.bound == pytest.approx(model.relaxed(found.multipliers)[0], abs=1e-9)
        for _ in range(20):
            other = found.multipliers * rng.uniform(0.5, 2, bounds) + rng.uniform(0, 0.1, bounds)
            assert model.relaxed(other)[0] <= found.bound + 1e-6


def test_relaxed_values_bound_every_feasible_arch():
    rng = np.random.default_rng(5)
    loss, cost = (tables(rng, [4] * 4, chain_edges(4)) for _ in range(2))
    limit = reachable_limit(rng, cost, brute.archs(cost))
    model, best = Model.of(loss, [(cost, limit)]), brute.optimum(loss, [(cost, limit)]).loss
    assert all(model.relaxed(np.array([m]))[0] <= best + 1e-12 for m in np.linspace(0, 5, 50))

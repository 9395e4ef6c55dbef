import numpy as np
import pytest
import torch

from sartor.core.errors import BudgetError, ConfigError, DivergedError
from sartor.core.tables import Tables
from sartor.solvers import brute, chain
from solvers.instances import chain_edges, couplings, reachable_limit, residual_edges, tables

SHAPES = ("chain", "any", "none")


def instances(count, **settings):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        sizes = [int(k) for k in rng.integers(1, 5, int(rng.integers(1, 6)))]
        yield rng, tables(rng, sizes, couplings(rng, len(sizes), SHAPES[seed % 3]), **settings)


@pytest.mark.parametrize("kind", ["real", "integer"])
def test_minimum_is_the_least_of_all_archs(kind):
    for _, t in instances(60, kind=kind):
        arch, value = chain.minimum(t)
        assert value == t.cost(arch)
        assert value == pytest.approx(brute.minimum(t)[1], abs=1e-12)


def test_minimum_avoids_infinite_entries_and_says_when_it_cannot():
    blocked = 0
    for _, t in instances(60, holes=0.3):
        try:
            best = brute.minimum(t)[1]
        except BudgetError:
            blocked += 1
            with pytest.raises(BudgetError, match="forbidden"):
                chain.minimum(t)
        else:
            assert chain.minimum(t)[1] == pytest.approx(best, abs=1e-12)
    assert 5 < blocked < 55


def test_minimum_of_a_residual_graph():
    rng = np.random.default_rng(0)
    t = tables(rng, [3] * 9, residual_edges(3, 2))
    assert chain.minimum(t)[1] == pytest.approx(brute.minimum(t)[1], abs=1e-12)


@pytest.mark.parametrize("temperature", [10.0, 1.0, 0.02])
def test_marginals_equal_enumeration(temperature):
    for _, t in instances(40):
        for ours, oracle in zip(chain.marginals(t, temperature), brute.marginals(t, temperature), strict=True):
            assert ours.dtype == torch.float64
            torch.testing.assert_close(ours, oracle, rtol=1e-9, atol=1e-12)


def test_marginals_with_forbidden_entries():
    t = Tables(
        (torch.zeros(2, dtype=torch.float64), torch.tensor([0.0, torch.inf, 1.0], dtype=torch.float64)),
        {(0, 1): torch.tensor([[torch.inf, 0.0, 0.5], [0.25, 0.0, torch.inf]], dtype=torch.float64)},
    )
    for ours, oracle in zip(chain.marginals(t, 0.7), brute.marginals(t, 0.7), strict=True):
        torch.testing.assert_close(ours, oracle)


@pytest.mark.parametrize("temperature", [1e-6, 1e-300])
def test_cold_marginals_are_the_minimum(temperature):
    rng = np.random.default_rng(1)
    t = tables(rng, [6, 11, *[14] * 12], chain_edges(14)) * 1e3
    found = chain.marginals(t, temperature)
    assert tuple(int(p.argmax()) for p in found) == chain.minimum(t)[0]
    assert all(float(p.max()) == pytest.approx(1.0) for p in found)


def test_hot_marginals_are_uniform():
    t = tables(np.random.default_rng(1), [6, 11, 14], chain_edges(3))
    for p in chain.marginals(t, 1e12):
        torch.testing.assert_close(p, torch.full_like(p, 1 / len(p)), rtol=1e-9, atol=0)


def test_marginals_do_not_move_with_a_constant():
    t = tables(np.random.default_rng(1), [3, 4, 5], chain_edges(3))
    shifted = Tables(tuple(u + 1e6 for u in t.unary), t.pairwise)
    for p, q in zip(chain.marginals(t, 0.1), chain.marginals(shifted, 0.1), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_the_temperature_is_positive(temperature):
    with pytest.raises(ConfigError, match="positive"):
        chain.marginals(tables(np.random.default_rng(0), [2], []), temperature)


def hull_value(points, limit):
    """Lower convex hull of (cost, loss) at `limit`: the least over pairs of points on both sides."""
    under = [p for p in points if p[0] <= limit]
    lines = [loss for _, loss in under]
    for c0, l0 in under:
        lines += [l0 + (l1 - l0) * (limit - c0) / (c1 - c0) for c1, l1 in points if c1 > limit]
    return min(lines)


def test_lagrangian_is_feasible_and_optimal_on_the_hull():
    for rng, loss in instances(60):
        cost = tables(rng, [len(u) for u in loss.unary], list(loss.pairwise))
        every = brute.archs(loss)
        limit = reachable_limit(rng, cost, every)
        found = chain.lagrangian(loss, cost, limit)
        assert cost.cost(found.arch) == found.costs[0] <= limit
        assert loss.cost(found.arch) == found.loss
        best = brute.optimum(loss, [(cost, limit)]).loss
        assert found.bound <= best + 1e-12 <= found.loss + 1e-9
        assert found.optimal == (found.loss <= found.bound + 1e-12)
        points = list(zip(cost(every).tolist(), loss(every).tolist(), strict=True))
        assert found.bound == pytest.approx(hull_value(points, limit), abs=1e-9)
        # The answer minimises the Lagrangian at the multiplier that it reports: it is a vertex of the hull.
        penalised = loss + cost * found.multiplier
        assert penalised.cost(found.arch) == pytest.approx(brute.minimum(penalised)[1], abs=1e-9)


def test_a_loose_limit_has_no_multiplier():
    rng = np.random.default_rng(0)
    loss, cost = (tables(rng, [4, 4, 4], chain_edges(3)) for _ in range(2))
    found = chain.lagrangian(loss, cost, 1e9)
    assert (found.multiplier, found.optimal, found.loss) == (0.0, True, brute.minimum(loss)[1])
    assert chain.lagrangian(loss, cost, float("inf")) == found


def test_every_reachable_limit_is_met_by_lagrangian():
    for rng, cost in instances(60, kind="decimal"):
        loss = tables(rng, [len(u) for u in cost.unary], [])
        least = float(cost(brute.archs(cost)).min())
        assert chain.lagrangian(loss, cost, least).costs == (least,)


def test_an_unreachable_limit_names_the_smallest_cost():
    rng = np.random.default_rng(0)
    loss, cost = (tables(rng, [4, 4, 4], chain_edges(3), kind="integer") for _ in range(2))
    least = brute.minimum(cost)[1]
    with pytest.raises(BudgetError, match=rf"\({least - 0.5:.17g}\).*\({least:.17g}\)"):
        chain.lagrangian(loss, cost, least - 0.5)


def test_tables_of_nan_are_refused():
    with pytest.raises(DivergedError, match="NaN"):
        chain.minimum(Tables((torch.tensor([0.0, torch.nan]),)))

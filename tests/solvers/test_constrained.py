import numpy as np
import pytest
import torch

from sartor.core.errors import BudgetError, CapabilityError, ConfigError
from sartor.core.tables import Tables
from sartor.solvers import brute, chain, constrained, integer
from solvers.instances import chain_edges, couplings, reachable_limit, residual_edges, tables

SHAPES = ("chain", "any", "none")


def outcome(solve, *args, **settings):
    try:
        return solve(*args, **settings)
    except BudgetError:
        return None


def check(found, loss, constraints):
    assert found.loss == loss.cost(found.arch)
    assert found.costs == tuple(t.cost(found.arch) for t, _ in constraints)
    assert all(cost <= limit for cost, (_, limit) in zip(found.costs, constraints, strict=True))
    assert found.bound <= found.loss


@pytest.mark.parametrize("kind", ["real", "integer", "decimal"])
@pytest.mark.parametrize("bounds", [1, 2, 3])
def test_optimum_equals_enumeration(kind, bounds):
    infeasible, count = 0, 60 // bounds
    for seed in range(count):
        rng = np.random.default_rng(seed)
        sizes = [int(k) for k in rng.integers(1, 5, int(rng.integers(1, 6)))]
        edges = couplings(rng, len(sizes), SHAPES[seed % 3])
        loss = tables(rng, sizes, edges, kind=("real", "integer")[seed % 2], holes=0.03)
        costs = [tables(rng, sizes, edges, kind=kind, holes=0.03) for _ in range(bounds)]
        constraints = [(c, reachable_limit(rng, c, brute.archs(c))) for c in costs]
        oracle, found = outcome(brute.optimum, loss, constraints), outcome(constrained.optimum, loss, constraints)
        assert (oracle is None) == (found is None)
        if oracle is None:
            infeasible += 1
            continue
        check(found, loss, constraints)
        assert found.optimal
        assert found.bound == found.loss == pytest.approx(oracle.loss, abs=1e-10)
        assert (found.multiplier is not None) == (bounds == 1)
    assert infeasible < 0.75 * count


def test_equal_sums_that_round_differently_stay_feasible_and_optimal():
    rng = np.random.default_rng(0)
    hard = 0
    for _ in range(120):
        table = torch.from_numpy(rng.integers(1, 10, 3) / 10)
        cost = Tables((table,) * 5, {(0, 3): torch.from_numpy(rng.integers(0, 5, (3, 3)) / 10)})
        loss = tables(rng, [3] * 5, [(1, 2)])
        every = brute.archs(cost)
        limit = reachable_limit(rng, cost, every)
        values = cost(every)
        hard += int(((values > limit) & (values < limit + 1e-9)).any())
        found = constrained.optimum(loss, [(cost, limit)])
        check(found, loss, [(cost, limit)])
        assert found.loss == pytest.approx(brute.optimum(loss, [(cost, limit)]).loss, abs=1e-10)
    assert hard > 20


@pytest.mark.parametrize("seed", range(12))
def test_optimum_of_a_chain_equals_an_integer_programme(seed):
    rng = np.random.default_rng(seed)
    sizes = [int(k) for k in rng.integers(3, 7, 6)]
    loss = tables(rng, sizes, chain_edges(6) if seed % 2 else [])
    costs = [tables(rng, sizes, chain_edges(6)) for _ in range(1 + seed % 3 // 2)]
    constraints = [(c, float(np.quantile(c([tuple(rng.integers(sizes)) for _ in range(200)]), 0.3))) for c in costs]
    found = outcome(constrained.optimum, loss, constraints)
    oracle = outcome(integer.optimum, loss, constraints)
    assert (found is None) == (oracle is None)
    if found is not None:
        check(found, loss, constraints)
        assert found.loss == pytest.approx(oracle.loss, abs=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_optimum_of_a_residual_graph_equals_an_integer_programme(seed):
    rng = np.random.default_rng(seed)
    sizes, edges = [4] * 9, residual_edges(3, 2)
    loss, cost = tables(rng, sizes, []), tables(rng, sizes, edges)
    limit = float(np.quantile(cost([tuple(rng.integers(sizes)) for _ in range(200)]), 0.2))
    found = constrained.optimum(loss, [(cost, limit)])
    check(found, loss, [(cost, limit)])
    assert found.loss == pytest.approx(integer.optimum(loss, [(cost, limit)]).loss, abs=1e-5)


def test_the_certificate_closes_on_full_size_chains():
    rng = np.random.default_rng(0)
    sizes = [6, 11, *[14] * 12]
    for _ in range(5):
        loss, cost = tables(rng, sizes, []), tables(rng, sizes, chain_edges(14))
        least, most = chain.minimum(cost)[1], cost.cost(chain.minimum(loss)[0])
        limit = least + rng.uniform(0.1, 0.9) * (most - least)
        found, relaxed = constrained.optimum(loss, [(cost, limit)]), chain.lagrangian(loss, cost, limit)
        check(found, loss, [(cost, limit)])
        assert found.optimal
        assert relaxed.bound <= found.loss <= relaxed.loss


def test_a_gap_is_kept_and_certified():
    rng = np.random.default_rng(3)
    for _ in range(20):
        sizes = [5] * 6
        loss, cost = tables(rng, sizes, []), tables(rng, sizes, chain_edges(6))
        limit = chain.minimum(cost)[1] + 1.0
        exact, rough = (constrained.optimum(loss, [(cost, limit)], gap=g) for g in (0.0, 0.2))
        assert exact.loss <= rough.loss <= exact.loss + 0.2 + 1e-12
        assert rough.bound <= exact.loss + 1e-12
        assert rough.loss - rough.bound <= 0.2 + 1e-9


@pytest.mark.parametrize("kind", ["real", "decimal"])
def test_more_labels_than_the_beam_holds_leave_an_honest_bound(monkeypatch, kind):
    monkeypatch.setattr(constrained, "BEAMS", (1, 2))
    rng = np.random.default_rng(0)
    proved = 0
    for _ in range(40):
        sizes = [4] * 5
        loss, cost = tables(rng, sizes, []), tables(rng, sizes, chain_edges(5), kind=kind)
        limit = reachable_limit(rng, cost, brute.archs(cost))
        found, oracle = constrained.optimum(loss, [(cost, limit)]), brute.optimum(loss, [(cost, limit)])
        assert found.bound <= oracle.loss + 1e-12 <= found.loss + 1e-9
        assert found.optimal <= (found.loss <= oracle.loss + 1e-12)
        proved += found.optimal
    assert 0 < proved < 40


def test_peaks_forbid_entries():
    bound = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sizes = [3, 4, 3, 2]
        loss, cost = tables(rng, sizes, []), tables(rng, sizes, chain_edges(4))
        zeros = tuple(torch.zeros(k, dtype=torch.float64) for k in sizes)
        pair = Tables(zeros, {(1, 2): torch.from_numpy(rng.random((4, 3)))}, 0.25)
        single = Tables((*zeros[:3], torch.from_numpy(rng.random(2))), {}, 0.25)
        both = Tables((zeros[0], torch.from_numpy(rng.random(4)), zeros[2], torch.from_numpy(rng.random(2))))
        peaks = [(pair, 0.7), (single, 0.9), (both, 1.3)]
        constraints = [(cost, reachable_limit(rng, cost, brute.archs(cost)))]
        oracle = outcome(brute.optimum, loss, constraints, peaks=peaks)
        found = outcome(constrained.optimum, loss, constraints, peaks=peaks)
        assert (oracle is None) == (found is None)
        if oracle is not None:
            assert found.loss == pytest.approx(oracle.loss, abs=1e-12)
            assert all(t.cost(found.arch) <= limit for t, limit in peaks)
            bound += oracle.loss > brute.optimum(loss, constraints).loss + 1e-9
    assert bound > 10


def test_a_peak_alone_needs_no_other_constraint():
    loss = Tables((torch.tensor([0.0, 1.0], dtype=torch.float64),))
    peak = Tables((torch.tensor([5.0, 2.0], dtype=torch.float64),), {}, 1.0)
    found = constrained.optimum(loss, [], peaks=[(peak, 3.0)])
    assert (found.arch, found.optimal, found.multiplier) == ((1,), True, None)
    with pytest.raises(BudgetError, match="peak"):
        constrained.optimum(loss, [], peaks=[(peak, 2.9)])


def test_a_peak_of_three_choices_is_refused():
    t = tables(np.random.default_rng(0), [2, 2, 2], [])
    with pytest.raises(CapabilityError, match=r"at most two choices.*\[0, 1, 2\]"):
        constrained.optimum(t, [], peaks=[(t, 1.0)])


def test_limits_that_exclude_each_other_name_what_is_reachable():
    loss = Tables((torch.zeros(3, dtype=torch.float64),))
    a = Tables((torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64),))
    b = Tables((torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64),))
    assert constrained.optimum(loss, [(a, 2.0), (b, 2.0)]).arch == (1,)
    with pytest.raises(BudgetError, match=r"limits \(1.5, 1.5\).*\(1, 1\)"):
        constrained.optimum(loss, [(a, 1.5), (b, 1.5)])


def test_an_unbounded_constraint_does_not_bind():
    rng = np.random.default_rng(0)
    loss, cost = (tables(rng, [4, 4, 4], chain_edges(3)) for _ in range(2))
    found = constrained.optimum(loss, [(cost, float("inf")), (cost, float("inf"))])
    assert found.loss == chain.minimum(loss)[1]


def test_a_limit_is_a_number():
    t = tables(np.random.default_rng(0), [2, 2], [])
    with pytest.raises(ConfigError, match="nan"):
        constrained.optimum(t, [(t, float("nan"))])
    with pytest.raises(ConfigError, match="nan"):
        constrained.optimum(t, [], peaks=[(t, float("nan"))])

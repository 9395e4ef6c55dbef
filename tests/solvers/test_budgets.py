from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from problems import small_problem
from sartor import archs
from sartor.core.contracts import CostModel
from sartor.core.errors import BudgetError, CapabilityError
from sartor.core.records import Constraint
from sartor.core.rng import torch_rng
from sartor.core.tables import Tables
from sartor.solvers import brute, chain
from sartor.solvers.budgets import Budget, bisected, levels, within


def random_loss(seed=0):
    g = torch_rng(seed)
    return Tables(tuple(torch.rand(4, generator=g, dtype=torch.float64) for _ in range(3)))


def test_levels_zip_the_constraints_loosest_first():
    problem = replace(small_problem(), constraints=(Constraint("macs", 9, (3, 6)), Constraint("memory_bytes", 5)))
    assert levels(problem) == [
        {"macs": 9, "memory_bytes": 5},
        {"macs": 6, "memory_bytes": 5},
        {"macs": 3, "memory_bytes": 5},
    ]
    assert levels(replace(problem, constraints=())) == [{}]


@pytest.mark.parametrize("seed", range(5))
def test_best_is_the_best_of_all_archs_that_meet_every_limit(seed):
    problem, loss = small_problem(), random_loss(seed)
    for limits in levels(problem):
        fits = [a for a in archs.enumerate_all(problem.space) if within(problem, a, limits)]
        best = Budget.of(problem, limits, "a test").best(loss)
        assert best in fits
        assert loss.cost(best) == pytest.approx(min(loss.cost(a) for a in fits))


def test_the_lagrangian_decoder_stays_within_one_limit_and_takes_no_more():
    problem, loss = small_problem(), random_loss()
    limits = {"macs": problem.limit("macs")}
    found = Budget.of(problem, limits, "a test").best(loss, "lagrangian")
    assert within(problem, found, limits)
    with pytest.raises(CapabilityError, match="decoder = 'exact'"):
        Budget.of(problem, problem.limits(), "a test").best(loss, "lagrangian")


def test_probabilities_are_the_marginals_of_the_gibbs_distribution():
    problem, loss = small_problem(), random_loss(3)
    macs, limits = problem.cost("macs").terms()[0], {"macs": levels(problem)[1]["macs"]}
    gamma = chain.lagrangian(loss, macs, limits["macs"]).multiplier
    assert gamma > 0
    for limit, energy in (({}, loss), (limits, loss + macs * gamma)):
        found = Budget.of(problem, limit, "a test").probabilities(loss, 0.1)
        assert all(torch.allclose(a, b) for a, b in zip(found, brute.marginals(energy, 0.1), strict=True))


def test_a_colder_distribution_prefers_the_better_options():
    problem, loss = small_problem(), random_loss(1)
    budget = Budget.of(problem, levels(problem)[0], "a test")
    entropy = [sum(float(torch.special.entr(p).sum()) for p in budget.probabilities(loss, t)) for t in (1, 0.1, 0.01)]
    assert entropy[0] > entropy[1] > entropy[2]


def test_archs_over_a_peak_are_never_drawn():
    problem = small_problem()
    memory = problem.cost("memory_bytes")
    upper = float(memory([(1, 3, 3)])[0])
    banned = [k for k in range(4) if float(memory([(k, 0, 0)])[0]) > upper]
    assert banned
    probabilities = Budget.of(problem, {"memory_bytes": upper}, "a test").probabilities(random_loss(), 10.0)
    assert all(probabilities[0][k] == 0 for k in banned)
    assert float(probabilities[0].sum()) == pytest.approx(1)


def test_a_cost_without_tables_is_named():
    class Opaque(CostModel):
        metric = "opaque"

        def __call__(self, archs):
            return torch.zeros(len(archs), dtype=torch.float64)

    problem = replace(small_problem(), costs={"opaque": Opaque()})
    with pytest.raises(CapabilityError, match="Ows needs Terms, which Opaque does not offer"):
        Budget.of(problem, {"opaque": 1.0}, "Ows")

    class Unable(Opaque):
        def terms(self):
            return ()

    with pytest.raises(CapabilityError, match=r"Ows needs opaque as a sum .*, which Unable cannot give for this space"):
        Budget.of(replace(problem, costs={"opaque": Unable()}), {"opaque": 1.0}, "Ows")


def test_a_budget_that_nothing_meets():
    budget = Budget.of(small_problem(), {"macs": 1.0}, "a test")
    for call in (lambda: budget.best(random_loss()), lambda: budget.probabilities(random_loss(), 1.0)):
        with pytest.raises(BudgetError):
            call()


def test_bisection_ends_on_both_sides_of_the_limit():
    low, high = bisected(lambda factor: factor**2 <= 2, 0.0, 2.0, 40)
    assert low**2 <= 2 < high**2
    assert high - low < 1e-11

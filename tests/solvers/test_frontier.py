import numpy as np
import pytest

from sartor.core.errors import CapabilityError
from sartor.solvers import brute
from sartor.solvers.frontier import completions, decode, plan
from solvers.instances import chain_edges, residual_edges, tables


def widest(sizes, edges):
    return max(step.target.size for step in plan(tuple(sizes), frozenset(edges)).steps)


def test_a_chain_has_a_frontier_of_one_choice():
    assert widest([14] * 14, chain_edges(14)) == 14**2
    shuffled = np.random.default_rng(0).permutation(14)
    assert widest([14] * 14, [tuple(sorted((int(shuffled[i]), int(shuffled[j])))) for i, j in chain_edges(14)]) == 14**2


def test_a_residual_network_has_a_frontier_of_two_choices():
    assert widest([14] * 12, residual_edges(3, 3)) == 14**3


def test_choices_without_couplings_have_none():
    assert widest([14] * 5, []) == 14


def test_a_clique_is_refused_before_memory_runs_out():
    with pytest.raises(CapabilityError, match="joint options"):
        plan((14,) * 8, frozenset((i, j) for i in range(8) for j in range(i + 1, 8)))


def test_the_plan_holds_every_term_once():
    rng = np.random.default_rng(0)
    t = tables(rng, [2, 3, 4, 2], [(0, 1), (0, 2), (1, 3), (2, 3), (0, 3)])
    steps = plan((2, 3, 4, 2), frozenset(t.pairwise))
    flat = steps.flatten([u.numpy() for u in t.unary], [(e, g.numpy()) for e, g in t.pairwise.items()])
    best = completions(steps, flat)
    arch, value = brute.minimum(t)
    assert best[0][0] + t.constant == pytest.approx(value, abs=1e-12)
    assert decode(steps, flat, best) == arch


def test_no_choices_at_all():
    steps = plan((), frozenset())
    assert decode(steps, np.zeros(0), completions(steps, np.zeros(0))) == ()

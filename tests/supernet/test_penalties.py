from __future__ import annotations

from itertools import product

import pytest
import torch

from sartor.core.errors import ConfigError
from sartor.core.rng import torch_rng
from sartor.supernet.penalties import Penalty
from sartor.supernet.preferences import Preferences

from operations import SIZES, toy  # isort: skip


def setting(kind, weight=0.0, **changes):
    problem = toy(**changes)
    preferences = Preferences(problem.space.choices, torch_rng(2), scale=1.0)
    return problem, preferences, Penalty(problem, kind, weight, by="a test")


def test_the_expected_cost_is_that_of_all_archs_with_pairs_and_constant():
    problem, preferences, penalty = setting("none")
    cost = problem.cost("latency_ms")
    want = sum(float(preferences.log_prob(a).exp().detach()) * float(cost([a])[0]) for a in product(*map(range, SIZES)))
    assert penalty.expected(preferences.probs()) == {"latency_ms": pytest.approx(want)}
    ratios = penalty.ratios(preferences.probs())
    assert ratios.tolist() == [pytest.approx(want / 9.0)]
    (slope,) = torch.autograd.grad(ratios.sum(), [preferences.logits])
    with torch.no_grad():
        preferences.logits[0, 1] += 1e-6
    moved = float(penalty.ratios(preferences.probs()).detach()) - float(ratios.detach())
    assert moved / 1e-6 == pytest.approx(float(slope[0, 1]), rel=1e-4)


def test_the_losses_of_the_source():
    loss, ratio = torch.tensor(2.0, dtype=torch.float64), torch.tensor([1.5], dtype=torch.float64)
    for kind, weight, want in [
        ("none", 0.0, 2.0),
        ("tilt", 0.0, 2.0),
        ("add_linear", 0.0, 2.0 + 0.1 * 0.5),
        ("add_linear", 0.4, 2.0 + 0.4 * 0.5),
        # 120 ms where 80 are allowed: 0.2 * loss * (log 120 / log 80) ** 0.3
        ("mul_log", 0.0, 0.2 * 2.0 * (4.787491742782046 / 4.382026634673881) ** 0.3),
    ]:
        assert float(setting(kind, weight)[2](loss, ratio)) == pytest.approx(want)


def test_the_tilt_keeps_every_level_at_its_limit():
    _, preferences, penalty = setting("tilt", levels=(6.5,))
    start = preferences.logits.detach().clone()
    found = []
    for _ in range(60):
        found.append((penalty.level, float(penalty.ratios(preferences.probs()).detach()) * 9.0))
        penalty.tilt(preferences)
    costs = dict(found[-2:])
    assert costs == {0: pytest.approx(min(9.0, costs[0])), 1: pytest.approx(6.5, abs=1e-3)}
    assert torch.equal(preferences.logits.detach(), start)
    assert penalty.multipliers[1][0] > penalty.multipliers[0][0]


def test_no_tilt_where_the_limit_does_not_bind():
    _, preferences, penalty = setting("tilt", upper=100.0)
    for _ in range(5):
        penalty.tilt(preferences)
    assert not preferences.tilt.any()
    _, preferences, penalty = setting("add_linear", upper=5.0)
    penalty.tilt(preferences)
    assert not preferences.tilt.any()


def test_a_penalty_that_there_is_not():
    with pytest.raises(ConfigError, match="mul_log"):
        setting("hinge")

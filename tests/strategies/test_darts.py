from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from sartor.core.errors import ConfigError
from sartor.core.rng import torch_rng
from sartor.spaces.cells import Cells
from sartor.strategies import darts
from sartor.strategies.darts import Darts
from sartor.supernet.mixed import Mixed

from operations import Notes, batches, toy  # isort: skip


def quadratic(output, y):
    """For one image, quadratic in each map and in the gates."""
    return (output.sum(1) - y) ** 2


def setting(**settings):
    problem = toy(loss=quadratic)
    given = {"epochs": 2, "penalty": "none", "temperature": 0.0} | settings
    strategy = Darts(problem, 0, **given)
    with torch.no_grad():
        for weight in strategy.training.parameters:
            weight.mul_(0.3)
    return strategy, next(batches(torch_rng(5), 1)), next(batches(torch_rng(6), 1))


def exact(strategy, train, valid, rate):
    """The gradient of the held-out loss through one step of SGD, by differentiating twice."""
    net, preferences = strategy.training.supernet, strategy.controller.preferences
    weights = dict(net.named_parameters())
    gates = preferences.rows(preferences.probs())
    loss = quadratic(net(train[0], gates), train[1]).mean()
    slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    ahead = {k: w - rate * s for (k, w), s in zip(weights.items(), slopes, strict=True)}
    after = torch.func.functional_call(net, ahead, (valid[0], gates))
    (gradient,) = torch.autograd.grad(quadratic(after, valid[1]).mean(), [preferences.logits])
    return gradient


def test_the_second_order_is_the_gradient_through_a_step_in_the_limit_of_small_differences(monkeypatch):
    strategy, train, valid = setting(order=2)
    want = exact(strategy, train, valid, 0.05)
    before, errors = [p.detach().clone() for p in strategy.training.parameters], []
    for nudge in (1e-1, 1e-2, 1e-3):
        monkeypatch.setattr(darts, "NUDGE", nudge)
        _, found = strategy.slopes(train, valid, 0.05)
        errors.append(float((found - want).abs().max() / want.abs().max()))
    assert errors[2] < 1e-6
    assert errors[1] < 1e-4
    assert errors[0] > 50 * errors[1]  # a central difference: quadratic in its step
    assert all(torch.equal(a, b) for a, b in zip(before, strategy.training.parameters, strict=True))


def test_the_first_order_lacks_the_step(monkeypatch):
    strategy, train, valid = setting()
    _, first = strategy._first(valid)
    assert torch.allclose(exact(strategy, train, valid, 0.0), first)
    assert (exact(strategy, train, valid, 0.05) - first).abs().max() > 0.01 * first.abs().max()
    assert torch.allclose(strategy.slopes(train, valid, 0.0)[1], first)


def test_all_options_run_with_their_probabilities():
    strategy, _, _ = setting()
    assert [float(g.sum()) for g in strategy._gates()] == pytest.approx([1, 1, 1])
    assert all((g > 0).all() and not g.requires_grad for g in strategy._gates())


@pytest.mark.parametrize("order", [1, 2])
def test_preferences_move_to_lower_held_out_losses(order):
    strategy, train, valid = setting(order=order, arch_lr=0.05, arch_schedule="constant")
    first = float(strategy._learn(train, valid, 0.01))
    for _ in range(40):
        last = float(strategy._learn(train, valid, 0.01))
    assert last < 0.9 * first


def test_the_weights_follow_a_cosine_with_a_floor():
    strategy, _, _ = setting(epochs=4)
    rates = []
    while not strategy.training.finished:
        strategy.step(Notes())
        rates.append(strategy.training.optimizer.param_groups[0]["lr"] * 64 / 8)
    assert rates == pytest.approx([0.001 + 0.024 * f for f in (1, 0.853553, 0.5, 0.146447)], rel=1e-5)


def test_norms_of_operations_may_learn_no_scales():
    given = toy()
    problem = replace(given, space=Cells(size=8, cells=(1,), widths=(4,)), costs={}, constraints=())
    learn, fixed = Darts(problem, 0), Darts(problem, 0, affine=False)
    options = [m for m in learn.training.supernet.modules() if isinstance(m, Mixed)]
    norms = [n for mixed in options for n in mixed.modules() if isinstance(n, nn.BatchNorm2d)]
    counts = [sum(p.numel() for p in s.training.parameters) for s in (learn, fixed)]
    assert len(norms) == 6 * 2  # a convolution of 1 and one of 3 on every edge
    assert counts[0] - counts[1] == len(norms) * 2 * 4
    assert list(learn.training.supernet.state_dict()) == list(fixed.training.supernet.state_dict())


def test_there_is_no_third_order():
    with pytest.raises(ConfigError, match="order must be 1 or 2"):
        setting(order=3)

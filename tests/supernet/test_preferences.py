from __future__ import annotations

from itertools import product

import pytest
import torch

from sartor.core.records import Choice
from sartor.core.rng import torch_rng
from sartor.supernet.preferences import (
    Pairs,
    Preferences,
    calm,
    keep_mass,
    pair_slopes,
    policy_slopes,
    straight_through,
    surprises,
)

from operations import WIDTH, Chain  # isort: skip

SIZES = (3, 2, 4, 1)
CHOICES = [Choice(f"c{i}", tuple(range(k))) for i, k in enumerate(SIZES)]


@pytest.fixture
def preferences():
    """With a tilt, so that it is seen where it counts."""
    found = Preferences(CHOICES, torch_rng(3), scale=1.0)
    found.tilt.copy_(torch.randn(4, 4, generator=torch_rng(4), dtype=torch.float64))
    return found


def every():
    return list(product(*map(range, SIZES)))


def exact(preferences, value):
    """The gradient by the logits of the expectation of a function of the arch, by enumeration."""
    total = sum(preferences.log_prob(a).exp() * value(a) for a in every())
    (gradient,) = torch.autograd.grad(total, [preferences.logits])
    return gradient


def test_probabilities_are_softmaxes_of_what_is_there(preferences):
    for row, logits, tilt, k in zip(preferences.probs(), preferences.logits, preferences.tilt, SIZES, strict=True):
        assert torch.allclose(row[:k], (logits[:k] + tilt[:k]).softmax(0))
        assert not row[k:].any()
    assert sum(float(preferences.log_prob(a).exp().detach()) for a in every()) == pytest.approx(1)
    assert float(preferences.entropy().detach()) == pytest.approx(
        -sum(float((preferences.log_prob(a).exp() * preferences.log_prob(a)).detach()) for a in every())
    )


def test_draws_follow_the_probabilities_and_the_generator_alone(preferences):
    rng = torch_rng(0)
    drawn = torch.tensor([preferences.draw(rng) for _ in range(4000)])
    for i, k in enumerate(SIZES):
        shares = torch.bincount(drawn[:, i], minlength=k) / 4000
        assert torch.allclose(shares.double(), preferences.probs()[i, :k].detach(), atol=0.03)
    one, two = ([preferences.draw(g) for _ in range(20)] for g in (torch_rng(7), torch_rng(7)))
    assert one == two
    uniform = torch.tensor([preferences.draw_uniform(rng) for _ in range(4000)])
    assert torch.allclose(torch.bincount(uniform[:, 2]) / 4000, torch.full((4,), 0.25), atol=0.03)


def test_what_is_preferred_is_without_the_tilt(preferences):
    costs = preferences.unlikeliness()
    assert preferences.best() == min(every(), key=costs.cost)
    for row, k, cost in zip(preferences.logits, SIZES, costs.unary, strict=True):
        assert torch.allclose(-cost, row[:k].log_softmax(0))
    before = preferences.best()
    preferences.tilt.copy_(-100 * preferences.logits.detach())
    assert preferences.best() == before


def test_straight_through_is_exact_for_a_network_that_is_linear_in_its_gates():
    """Over all paths, weighted with their probabilities: the gradient of the expected loss."""
    choices = [Choice(f"c{i}", tuple(range(k))) for i, k in enumerate((3, 2, 4))]
    preferences = Preferences(choices, torch_rng(3), scale=1.0)
    torch.manual_seed(0)  # noqa: TID251 - of the toy's weights
    net, x = Chain(), torch.randn(5, WIDTH, generator=torch_rng(1), dtype=torch.float64)

    def loss(gates):
        return net(x, preferences.rows(gates)).sum()

    mean = torch.zeros_like(preferences.logits)
    want = torch.zeros(())
    for arch in product(range(3), range(2), range(4)):
        from sartor.supernet.gates import GLANCE

        gates = torch.where(preferences.one_hot(arch) > 0, 1.0, GLANCE).detach().requires_grad_()
        (slopes,) = torch.autograd.grad(loss(gates), [gates])
        chance = preferences.log_prob(arch).exp()
        mean += chance.detach() * straight_through(preferences.probs().detach(), slopes)
        want = want + chance * loss(preferences.one_hot(arch)).detach()
    (gradient,) = torch.autograd.grad(want, [preferences.logits])
    assert torch.allclose(mean, gradient, atol=1e-12)
    assert gradient.abs().max() > 0.1


def test_the_expected_policy_gradient_is_exact(preferences):
    value = {a: float(v) for a, v in zip(every(), torch.randn(24, generator=torch_rng(5)), strict=True)}
    want = -exact(preferences, value.get)
    mean = sum(
        preferences.log_prob(a).exp().detach() * policy_slopes(preferences, [a], torch.tensor([value[a] - 0.7]))
        for a in every()
    )
    assert torch.allclose(mean, want, atol=1e-12)


def test_surprises_hold_back_like_calm_and_leave_nothing_of_what_is_known(preferences):
    other = {a: float(v) for a, v in zip(every(), torch.randn(24, generator=torch_rng(5)), strict=True)}
    mean = sum(
        preferences.log_prob(a).exp().detach()
        * policy_slopes(preferences, [a], surprises(preferences, [a], [other[a]], 0.4))
        for a in every()
    )
    assert torch.allclose(mean, calm(preferences, 0.4) - exact(preferences, other.get), atol=1e-12)
    rewards = [0.4 * sum(float(row[k]) for row, k in zip(preferences.logits.detach(), a, strict=True)) for a in every()]
    left = surprises(preferences, every(), rewards, 0.4)
    assert torch.allclose(left, left[0].expand_as(left))
    assert surprises(preferences, every(), rewards, 0.0).tolist() == pytest.approx(rewards)


def test_the_mean_of_many_policy_gradients_is_unbiased(preferences):
    value = {a: float(v) for a, v in zip(every(), torch.randn(24, generator=torch_rng(5)), strict=True)}
    rng, each = torch_rng(0), []
    for _ in range(3000):
        drawn = [preferences.draw(rng) for _ in range(2)]
        each.append(policy_slopes(preferences, drawn, torch.tensor([value[a] for a in drawn])))
    error = torch.stack(each).std(0) / 3000**0.5
    away = (torch.stack(each).mean(0) + exact(preferences, value.get)).abs()
    assert (away <= 4.5 * error + 1e-12).all()
    assert error.max() < 0.05


def test_pairs_are_drawn_without_replacement(preferences):
    rng, p = torch_rng(0), preferences.probs().detach()
    counts = torch.zeros(3, 3, dtype=torch.float64)
    for _ in range(6000):
        pairs = preferences.draw_pairs(rng)
        active, other = pairs.options[0].tolist()
        counts[active, other] += 1
        assert pairs.live.flatten().tolist() == [True, True, True, False]
        assert all((a == b) == (k == 1) for (a, b), k in zip(pairs.options.tolist(), SIZES, strict=True))
    for i, j in product(range(3), range(3)):
        if i != j:  # either may have come first, and the softmax of the two says which runs
            both = p[0, i] * p[0, j] * (1 / (1 - p[0, i]) + 1 / (1 - p[0, j]))
            assert float(counts[i, j] / 6000) == pytest.approx(float(both * p[0, i] / (p[0, i] + p[0, j])), abs=0.03)


def test_the_gradient_of_a_pair_is_that_of_its_renormalised_probabilities(preferences):
    pairs = Pairs(torch.tensor([[2, 0], [0, 1], [3, 1], [0, 0]]), torch.tensor([[True], [True], [True], [False]]))
    gates = torch.randn(4, 4, generator=torch_rng(8), dtype=torch.float64)
    two = (preferences.logits + preferences.tilt).gather(1, pairs.options).softmax(1)
    (want,) = torch.autograd.grad(
        ((two * gates.gather(1, pairs.options)).sum(1) * pairs.live[:, 0]).sum(), [preferences.logits]
    )
    got = pair_slopes(preferences, pairs, gates)
    assert torch.allclose(got, want)
    assert not got[0, 1]
    assert not got[3].any()


def test_a_pair_keeps_its_mass_and_the_others_their_probabilities(preferences):
    pairs = Pairs(torch.tensor([[2, 0], [0, 1], [3, 1], [0, 0]]), torch.tensor([[True], [True], [True], [False]]))
    before, old = preferences.probs().detach(), preferences.logits.detach().clone()
    with torch.no_grad():
        preferences.logits.scatter_add_(
            1, pairs.options[:3], torch.tensor([[0.5, -0.2], [1.0, 0.3], [-2.0, 0.1]]).double()
        )
    moved = preferences.probs().detach()
    assert not torch.allclose(moved.gather(1, pairs.options)[:3].sum(1), before.gather(1, pairs.options)[:3].sum(1))
    keep_mass(preferences, pairs, old)
    after = preferences.probs().detach()
    assert torch.allclose(after.gather(1, pairs.options).sum(1), before.gather(1, pairs.options).sum(1))
    assert torch.allclose(after[0, 1], before[0, 1])
    assert torch.allclose(after[2, [0, 2]], before[2, [0, 2]])
    ratio = moved[0, 2] / moved[0, 0]
    assert torch.allclose(after[0, 2] / after[0, 0], ratio)


def test_calm_is_the_gradient_of_the_divergence_from_the_tilt(preferences):
    prior = preferences.tilt.masked_fill(~preferences.there, -torch.inf).log_softmax(1)
    p, logs = preferences.probs(), preferences.log_probs()
    there = preferences.there
    divergence = torch.where(there, p * (logs.masked_fill(~there, 0.0) - prior.masked_fill(~there, 0.0)), 0.0).sum()
    (want,) = torch.autograd.grad(0.3 * divergence, [preferences.logits])
    assert torch.allclose(calm(preferences, 0.3), want)


def test_where_calm_balances_the_loss_preferences_are_to_scale():
    choices = [Choice("c", (0, 1, 2))]
    preferences, losses = Preferences(choices), torch.tensor([[0.3, 0.1, 0.9]], dtype=torch.float64)
    for _ in range(3000):
        slopes = straight_through(preferences.probs().detach(), losses) + calm(preferences, 0.2)
        with torch.no_grad():
            preferences.logits -= 2.0 * slopes
    found = 0.2 * preferences.unlikeliness().unary[0]
    assert torch.allclose(found - found[1], losses[0] - losses[0, 1], atol=1e-6)

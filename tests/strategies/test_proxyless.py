from __future__ import annotations

from itertools import product

import pytest
import torch

from sartor.core.errors import ConfigError, DivergedError
from sartor.core.rng import torch_rng
from sartor.strategies.proxyless import Proxyless

from operations import SIZES, Notes, toy  # isort: skip


class Less:
    """A metric: minus the mean loss."""

    def to(self, device):
        return self

    def update(self, output, y):
        self.value = -output.sum(1).mean()

    def compute(self):
        return self.value


def setting(problem=None, **settings):
    given = {"epochs": 4, "every": 1, "temperature": 0.0, "penalty": "none"} | settings
    return Proxyless(problem or toy(), 0, **given)


def held_out(strategy, arch):
    """The loss of a path on the held-out batch that comes next."""
    twin = type(strategy.heldout)(strategy.problem, 0, by="a test")
    twin.load_state_dict(strategy.heldout.state_dict())
    x, y = twin.batch(8)
    return float(strategy.training.loss(x, y, strategy.training.hard(arch)).detach())


def test_the_mean_step_over_all_paths_is_the_gradient_of_the_expected_loss():
    """Straight-through against enumeration, costs and the temperature included, for a loss linear in the gates."""
    strategy = setting(penalty="add_linear", penalty_weight=0.7)
    preferences, penalty = strategy.controller.preferences, strategy.penalty
    with torch.no_grad():
        preferences.logits.add_(torch.randn(3, 4, generator=torch_rng(3), dtype=torch.float64) * preferences.there)
    state = strategy.heldout.state_dict()
    mean, want = torch.zeros(3, 4, dtype=torch.float64), 0.7 * penalty.ratios(preferences.probs()).sum()
    for arch in product(*map(range, SIZES)):
        strategy.heldout.load_state_dict(state)
        chance = preferences.log_prob(arch).exp()
        want = want + chance * held_out(strategy, arch)
        value, slopes = strategy._slopes(8, arch, preferences.there)
        p = preferences.probs().detach()
        mean += chance.detach() * p * (slopes - (p * slopes).sum(1, keepdim=True))
        strategy.heldout.load_state_dict(state)
        assert value == pytest.approx(held_out(strategy, arch))
    (gradient,) = torch.autograd.grad(want, [preferences.logits])
    assert torch.allclose(mean, gradient, atol=1e-12)


def test_two_paths_move_two_options_and_keep_their_mass():
    strategy = setting(penalty="mul_log", arch_lr=0.3, update_skips=True)
    preferences = strategy.controller.preferences
    moved = torch.zeros(3, 4, dtype=torch.bool)
    for _ in range(12):
        before = preferences.probs().detach()
        logits = preferences.logits.detach().clone()
        strategy._two(8)
        changed = preferences.logits.detach() != logits
        assert (changed.sum(1) == 2).all()
        after = preferences.probs().detach()
        assert torch.allclose((after * changed).sum(1), (before * changed).sum(1))
        assert torch.allclose(after[~changed], before[~changed])
        moved |= changed
    assert torch.equal(moved, preferences.there)


def test_a_choice_whose_skip_ran_does_not_learn():
    for silent in (True, False):
        strategy = setting(gradient="full", update_skips=not silent)
        preferences = strategy.controller.preferences
        with torch.no_grad():
            preferences.logits[0, 0] = 50.0  # the skip runs for certain; the rest is still looked at
            preferences.logits[0, 1:3] = torch.tensor([49.0, 48.5])
        logits = preferences.logits.detach().clone()
        strategy.rng.manual_seed(1)
        assert preferences.draw(torch_rng(1))[0] in (0, 1, 2)
        drawn = []
        for _ in range(6):
            twin = torch.Generator()
            twin.set_state(strategy.rng.get_state())
            arch = preferences.draw(twin)
            before = preferences.logits.detach().clone()
            strategy._full(8)
            drawn.append((arch[0], bool((preferences.logits.detach()[0] != before[0]).any())))
        assert all(learned == (not silent or option != 0) for option, learned in drawn)
        assert {option for option, _ in drawn} >= {0}
        assert (preferences.logits.detach()[1:] != logits[1:]).any()


@pytest.mark.parametrize("gradient", ["two", "full", "reinforce"])
def test_learns_a_good_path_of_a_supernet_that_is_not_trained(gradient):
    metrics = {"accuracy": Less} if gradient == "reinforce" else {}
    strategy = setting(
        toy(upper=100.0, metrics=metrics), gradient=gradient, arch_lr=0.1, lr=1e-12, weight_decay=0.0, epochs=150
    )
    while not strategy.training.finished:
        strategy.step(Notes())
    pool = strategy.heldout.batch(1000)
    losses = {
        a: float(strategy.training.loss(*pool, strategy.training.hard(a)).detach()) for a in product(*map(range, SIZES))
    }
    found, best, worst = losses[strategy.solve({"latency_ms": 100.0})], min(losses.values()), max(losses.values())
    assert found <= best + 0.25 * (worst - best)


def test_warm_up_trains_weights_only_and_the_rates_are_the_sources(tmp_path):
    strategy, rates = setting(epochs=8, warmup=0.25, every=2), []
    start = strategy.controller.preferences.logits.detach().clone()
    lab = Notes(tmp_path, lambda arch: 0.5)
    for epoch in range(8):
        strategy.step(lab)
        rates.append(strategy.training.optimizer.param_groups[0]["lr"] * 256 / 8)
        moved = not torch.equal(start, strategy.controller.preferences.logits)
        assert moved == (epoch >= 2)
    assert strategy.steps == 12
    # the last batch of every epoch: halfway from its start to its end, the first one counts in one piece
    assert rates[:2] == pytest.approx([0.05, 0.05 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * 0.75)).item())])
    assert rates[2] == pytest.approx(0.025 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi / 12)).item()))
    assert ["arch_loss" in log for log in lab.logs] == [False] * 2 + [True] * 6
    assert not strategy.step(lab)
    assert len(lab.trials) == 1


def test_the_reward_is_that_of_the_source():
    problem = toy(upper=5.5)
    strategy = setting(problem, gradient="reinforce", penalty="mul_log")
    cost = float(problem.cost("latency_ms")([(2, 1, 3)])[0])
    assert strategy._reward((2, 1, 3), 0.8) == pytest.approx(0.8 * (5.5 / cost) ** 0.1)
    assert setting(problem, gradient="reinforce", penalty="tilt")._reward((2, 1, 3), 0.8) == 0.8


def test_what_goes_wrong():
    for settings in ({"gradient": "three"}, {"warmup": 1.0}, {"every": 0}):
        with pytest.raises(ConfigError):
            setting(**settings)
    huge = setting(toy(loss=lambda output, y: output.sum(1) * 1e308 * 1e10), warmup=0.0)
    with pytest.raises(DivergedError, match="lower lr"):
        huge.step(Notes())

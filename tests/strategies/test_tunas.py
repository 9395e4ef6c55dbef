from __future__ import annotations

from itertools import product

import pytest
import torch

from sartor.core.errors import ConfigError
from sartor.core.rng import torch_rng
from sartor.strategies.tunas import Tunas

from operations import SIZES, Notes, toy  # isort: skip


class Mean:
    """A metric: the mean output."""

    def __init__(self):
        self.values = []

    def to(self, device):
        return self

    def update(self, output, y):
        self.values.append(output.sum(1))

    def compute(self):
        return torch.cat(self.values).mean()


def setting(problem=None, **settings):
    given = {"epochs": 4, "tilt": False, "temperature": 0.0} | settings
    return Tunas(problem or toy(metrics={"accuracy": Mean}), 0, **given)


def test_the_reward_is_absolute_or_of_mnasnet():
    problem = toy(upper=5.5)
    arch = (2, 1, 3)
    ratio = float(problem.cost("latency_ms")([arch])[0]) / 5.5
    assert setting(problem)._rewards([arch], [0.8]) == [pytest.approx(0.8 - 0.1 * abs(ratio - 1))]
    assert setting(problem, reward="mnas_soft")._rewards([arch], [0.8]) == [pytest.approx(0.8 * ratio**-0.07)]
    assert setting(problem, weight=-0.3)._rewards([arch], [0.8]) == [pytest.approx(0.8 - 0.3 * abs(ratio - 1))]


def test_a_step_is_the_policy_gradient_of_what_was_drawn():
    strategy = setting(samples=4, warmup=0.0)
    preferences, twin = strategy.controller.preferences, torch.Generator()
    strategy._learn(32, 0.5)  # a baseline
    state = strategy.heldout.state_dict()
    twin.set_state(strategy.rng.get_state())
    drawn, probs = preferences.draws(4, twin), preferences.probs().detach()
    x, _ = strategy.heldout.batch(32)
    strategy.heldout.load_state_dict(state)
    parts = zip(drawn, x.tensor_split(4), strict=True)
    values = [float(strategy.training.supernet(p, strategy.training.hard(a)).sum(1).mean().detach()) for a, p in parts]
    rewards = strategy._rewards(drawn, values)
    level = strategy.baselines.state_dict()["levels"][0]
    before = (level["sum"], level["weight"])
    value, mean = strategy._learn(32, 0.5)
    assert (value, mean) == (pytest.approx(sum(values) / 4), pytest.approx(sum(rewards) / 4))
    weight = 0.95 * before[1] + 0.05
    baseline = (0.95 * before[0] + 0.05 * mean) / weight
    want = sum((probs - preferences.one_hot(a)) * (r - baseline) / 4 for a, r in zip(drawn, rewards, strict=True))
    assert torch.allclose(preferences.logits.grad, want)


def test_together_is_the_same_in_one_pass():
    one, two = setting(samples=4), setting(samples=4, together=True)
    for _ in range(3):
        assert one._learn(32, 0.9) == pytest.approx(two._learn(32, 0.9))
    assert torch.allclose(one.controller.preferences.logits, two.controller.preferences.logits)


def test_the_policy_rests_first_and_its_steps_rise_tenfold():
    strategy, steps = setting(arch_lr=0.01, warmup=0.25), []
    for progress in (0.0, 0.2, 0.25, 0.625, 1.0):
        before = strategy.controller.preferences.logits.detach().clone()
        strategy._learn(24, progress)
        moved = not torch.equal(before, strategy.controller.preferences.logits)
        steps.append(strategy.controller.optimizer.param_groups[0]["lr"] if moved else 0.0)
    assert steps == pytest.approx([0, 0, *(0.01 * 24 / 256 * f for f in (1, 10**0.5, 10))])


@pytest.mark.parametrize("ordered", [False, True])
def test_warm_ups_fade(ordered):
    strategy = setting(toy(ordered=ordered))
    shares = []
    for progress in (0.0, 0.125, 0.25):
        drawn = [g for _ in range(400) for g in strategy._gates(progress)[2:]]
        whole = torch.eye(4, dtype=torch.float64)[3] if ordered else torch.full((4,), 0.25, dtype=torch.float64)
        shares.append(sum(torch.equal(g, whole) for g in drawn) / 400)
    luck = 0.25 if ordered else 0.0  # the last width may also be drawn
    assert shares == pytest.approx([1.0, 0.5 + 0.5 * luck, luck], abs=0.08)
    off = setting(toy(ordered=ordered), warm_options=False, warm_widths=False)
    assert all(g.max() == 1 and g.sum() == 1 for g in off._gates(0.0))


def test_learns_a_good_path_of_a_supernet_that_is_not_trained():
    strategy = setting(reward="feasible", samples=8, arch_lr=2.0, epochs=60, lr=1e-12, arch_schedule="cosine")
    while not strategy.training.finished:
        strategy.step(Notes())
    x, _ = strategy.heldout.batch(1000)
    means = {
        a: float(strategy.training.supernet(x, strategy.training.hard(a)).sum(1).mean().detach())
        for a in product(*map(range, SIZES))
    }
    found, best, worst = means[strategy.solve({"latency_ms": 100.0})], max(means.values()), min(means.values())
    assert found >= best - 0.25 * (best - worst)


def test_tilted_draws_keep_to_the_level_whose_turn_it_is():
    strategy = setting(toy(levels=(6.0,), metrics={"accuracy": Mean}), tilt=True, temperature=0.5, warmup=0.0)
    for _ in range(40):
        strategy._learn(24, 0.5)
    costs = {}
    for _ in range(2):
        level = strategy.penalty.level
        drawn = strategy.controller.preferences.draws(500, torch_rng(0))
        costs[level] = float(strategy.problem.cost("latency_ms")(drawn).mean())
        arch = drawn[0]
        limit = (9.0, 6.0)[level]
        ratio = float(strategy.problem.cost("latency_ms")([arch])[0]) / limit
        assert strategy._rewards([arch], [0.8]) == [pytest.approx(0.8 - 0.1 * abs(ratio - 1))]
        strategy.penalty.tilt(strategy.controller.preferences)
    assert costs[1] == pytest.approx(6.0, rel=0.05)


@pytest.mark.parametrize("settings", [{"warmup": 1.0}, {"samples": 0}, {"reward": "kind"}, {"arch_lr": 0.0}])
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError):
        setting(**settings)

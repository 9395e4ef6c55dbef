from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import pytest
import torch

from sartor import archs
from sartor.core.errors import BudgetError, ConfigError, DivergedError
from sartor.core.moves import Moves
from sartor.core.rng import torch_rng
from sartor.spaces.tiny import Tiny
from sartor.supernet.controller import Controller, skips
from sartor.supernet.preferences import Preferences
from sartor.supernet.weights import Training

from operations import SIZES, Maps, Notes, toy  # isort: skip


def controller(problem=None, **settings):
    problem = problem or toy(levels=(6.0,))
    start = Preferences(problem.space.choices, torch_rng(1), scale=1.0)
    given = {"lr": 0.1, "schedule": "constant", "temperature": 0.3} | settings
    return problem, Controller(problem, start, by="a test", **given)


def test_the_answer_is_the_most_preferred_arch_within_the_limits():
    problem, learned = controller()
    cost, likelihood = problem.cost("latency_ms"), learned.preferences.unlikeliness()
    every = list(product(*map(range, SIZES)))
    bound = 0
    for limit in torch.linspace(5.1, 12, 12).tolist():
        inside = [a for a in every if float(cost([a])[0]) <= limit]
        found = learned.solve({"latency_ms": limit})
        assert found == min(inside, key=likelihood.cost)
        bound += found != learned.preferences.best()
    assert 0 < bound < 12
    assert learned.solve({"latency_ms": 100.0}) == learned.preferences.best()


class Least(Moves):
    def derive(self, preferences):
        assert all(float(p.exp().sum()) == pytest.approx(1.0) for p in preferences)
        return tuple(int(p.argmin()) for p in preferences)


class Contrary(Maps):
    """Takes what is least preferred."""

    @property
    def moves(self):
        return Least(self.choices, self.canonical)


def test_a_space_may_say_what_is_preferred():
    problem = toy(levels=(6.0,))
    space = Contrary()
    problem = replace(problem, space=space)
    problem, learned = controller(problem)
    least = tuple(int(row.argmin()) for row in learned.preferences.preferred())
    assert learned.solve({}) == least != learned.preferences.best()
    limit = float(problem.cost("latency_ms")([least])[0]) - 0.1
    found = learned.solve({"latency_ms": limit})
    assert float(problem.cost("latency_ms")([found])[0]) <= limit


def test_a_budget_that_nothing_meets_shows_before_training():
    with pytest.raises(BudgetError):
        controller(toy(upper=4.0))
    with pytest.raises(BudgetError):
        controller(toy(levels=(4.0,)))


def test_a_step_is_one_of_adam():
    _, learned = controller()
    twin = learned.preferences.logits.detach().clone().requires_grad_()
    adam = torch.optim.Adam([twin], lr=0.1, betas=(0.0, 0.999))
    for seed in range(3):
        slopes = torch.randn(3, 4, generator=torch_rng(seed), dtype=torch.float64)
        slopes[1] = 0.0
        before = learned.preferences.logits.detach().clone()
        learned.move(slopes, 0.5)
        twin.grad = slopes
        adam.step()
        assert torch.allclose(learned.preferences.logits, twin)
        assert torch.equal(learned.preferences.logits[1], before[1])  # no gradient, no move


def test_steps_and_temperature_fall():
    _, learned = controller(schedule="cosine")
    rates = []
    for progress in (0.0, 0.5, 1.0):
        learned.move(torch.ones(3, 4, dtype=torch.float64), progress, 2.0)
        rates.append(learned.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.2, 0.105, 0.01])
    _, learned = controller()
    assert [learned.temperature(2.0, p) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.2, 0.15, 0.1])
    assert learned.temperature(3.0, 0.0) == pytest.approx(0.1 * 2.01)  # one loss does not count for much


def test_slopes_that_are_not_finite():
    _, learned = controller()
    with pytest.raises(DivergedError, match=r"arch_lr \(now 0.1\)"):
        learned.move(torch.full((3, 4), torch.nan), 0.0)


@pytest.mark.parametrize("settings", [{"lr": 0.0}, {"temperature": -0.1}, {"schedule": "linear"}])
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError):
        controller(**settings)


def test_which_options_run_nothing():
    assert skips(Maps()) == [frozenset({0}), frozenset(), frozenset()]
    assert skips(Tiny()) == [frozenset()] * 3


def test_concludes_with_files_and_the_answer_to_every_level(tmp_path):
    problem, learned = controller()
    lab = Notes(tmp_path, lambda arch: 0.5)
    run = Training(problem, 0, by="a test", epochs=1, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    learned.conclude(lab, run)
    answers = [learned.solve({"latency_ms": limit}) for limit in (9.0, 6.0)]
    assert [t.arch for t in lab.trials] == list(dict.fromkeys(answers))
    written = json.loads((tmp_path / "preferences.json").read_text())
    assert written["options"] == [list(c.options) for c in problem.space.choices]
    assert [sum(row) for row in written["probabilities"]] == pytest.approx([1, 1, 1])
    best = archs.describe(problem.space, learned.preferences.best())
    rows = zip(written["choices"], written["options"], written["log_preferences"], strict=True)
    assert {name: options[row.index(max(row))] for name, options, row in rows} == best
    assert (tmp_path / "supernet.safetensors").exists()

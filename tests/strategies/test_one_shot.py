from __future__ import annotations

import copy
from itertools import product

import pytest
import torch
from torch import nn

from sartor.core.contracts import Supernet
from sartor.core.errors import ConfigError, StateError
from sartor.core.rng import torch_rng
from sartor.solvers.budgets import within
from sartor.strategies.one_shot import OneShot

from operations import SIZES, WIDTH, Maps, Notes, toy  # isort: skip


def setting(problem=None, **settings):
    given = {"epochs": 2, "samples": 10, "batch": 4, "ghost": 4} | settings
    return OneShot(problem or toy(levels=(6.5,)), 0, **given)


def finish(strategy, lab):
    while strategy.step(lab):
        pass


class Normed(Supernet):
    """A norm and a linear map, whose choices only add to the output."""

    def __init__(self):
        super().__init__()
        self.norm, self.last = nn.BatchNorm1d(WIDTH).double(), nn.Linear(WIDTH, WIDTH).double()

    def forward(self, x, gates):
        return self.last(self.norm(x).relu()) + 0 * sum(g.sum() for g in gates)

    def extract(self, arch):
        return copy.deepcopy(self)


class NormedMaps(Maps):
    def supernet(self):
        return Normed()


def test_ghost_batches_are_batch_norm_on_chunks():
    from dataclasses import replace

    problem = replace(toy(loss=lambda output, y: (output.sum(1) - y) ** 2), space=NormedMaps())
    strategy = setting(problem, weight_decay=0.0)
    plain = copy.deepcopy(strategy.training.supernet).train()
    strategy.training.supernet.train()
    x = torch.randn(12, WIDTH, generator=torch_rng(3), dtype=torch.float64)
    mean = strategy._step(x, x.sum(1))
    chunks = [(plain(part, [torch.zeros(1)]).sum(1) - part.sum(1)) ** 2 for part in x.tensor_split(3)]
    loss = torch.cat(chunks).mean()
    loss.backward()
    torch.optim.SGD(plain.parameters(), lr=0.1 * 12 / 256, momentum=0.9, nesterov=True).step()
    assert float(mean) == pytest.approx(float(loss.detach()))
    for ours, theirs in zip(strategy.training.supernet.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs)
    assert torch.allclose(strategy.training.supernet.norm.running_mean, plain.norm.running_mean)
    whole = (copy.deepcopy(plain)(x, [torch.zeros(1)]).sum(1) - x.sum(1)).square().mean()
    assert float(whole.detach()) != pytest.approx(float(mean), rel=1e-3)


def test_every_ghost_batch_has_paths_of_its_own():
    strategy = setting(ghost=2, rate=0.5)
    strategy.training.done = 2
    x = torch.zeros(40, WIDTH, dtype=torch.float64)
    parts = strategy._parts(x, x)
    assert [len(p[0]) for p in parts] == [2] * 20
    assert sum(p[3] for p in parts) == pytest.approx(1)
    assert len({tuple(torch.cat(p[2]).tolist()) for p in parts}) > 10


def test_what_did_not_run_does_not_decay():
    strategy = setting(paths="uniform", ghost=100, weight_decay=0.5, lr=0.5)
    x = torch.randn(8, WIDTH, generator=torch_rng(3), dtype=torch.float64)
    before = [p.detach().clone() for p in strategy.training.parameters]
    strategy._step(x, x.sum(1))
    for old, new, k in zip(before, strategy.training.parameters, SIZES, strict=True):
        moved = [bool((old[j] != new[j]).any()) for j in range(k)]
        assert sum(moved) == 1


def test_fair_rounds_train_every_option_on_the_whole_batch():
    strategy = setting(paths="fair")
    x = torch.zeros(8, WIDTH, dtype=torch.float64)
    parts = strategy._parts(x, x)
    assert len(parts) == max(SIZES)
    assert all(p[0] is x and p[3] == 0.25 for p in parts)
    last = [int(p[2][2].argmax()) for p in parts]
    assert sorted(last) == [0, 1, 2, 3]


@pytest.mark.parametrize("paths", ["dropout", "uniform", "fair"])
def test_finds_the_optimum_of_an_additive_objective_under_every_budget(tmp_path, paths):
    gains = [torch.rand(k, generator=torch_rng(9, k), dtype=torch.float64) for k in SIZES]

    def score(arch):
        return float(sum(g[a] for g, a in zip(gains, arch, strict=True)))

    strategy, lab = setting(paths=paths, samples=20), Notes(tmp_path, score)
    finish(strategy, lab)
    assert (tmp_path / "supernet.safetensors").exists()
    assert all(within(strategy.problem, t.arch, {"latency_ms": 9.0}) for t in lab.trials)
    assert sum(within(strategy.problem, t.arch, {"latency_ms": 6.5}) for t in lab.trials) >= 10
    cost = strategy.problem.cost("latency_ms")
    for limit in (9.0, 8.0, 6.5):
        inside = [a for a in product(*map(range, SIZES)) if float(cost([a])[0]) <= limit]
        assert score(strategy.solve({"latency_ms": limit})) >= max(map(score, inside)) - 0.02


def test_without_refinement_the_best_random_network_wins(tmp_path):
    strategy, lab = setting(refine=0), Notes(tmp_path, lambda a: float(sum(a) % 3))
    finish(strategy, lab)
    assert len(lab.trials) == 10
    best = max(t.metrics["accuracy"] for t in lab.trials)
    answer = strategy.solve({"latency_ms": 9.0})
    assert answer in {t.arch for t in lab.trials if t.metrics["accuracy"] == best}


def test_a_resumed_search_has_not_forgotten_its_rounds(tmp_path):
    """The model is never right here, and wants another network in every round."""
    lab = Notes(tmp_path, lambda arch: float(hash(arch) % 97))
    strategy = setting(refine=1, samples=4)
    while strategy.rounds < 1:
        strategy.step(lab)
    again, count = setting(refine=1, samples=4), len(lab.trials)
    again.load_state_dict(strategy.state_dict())
    again.recall(lab.trials)
    assert count > 4
    assert not again.step(lab)
    assert len(lab.trials) == count


def test_a_search_that_has_evaluated_nothing_has_no_answer():
    with pytest.raises(StateError, match="evaluated no network yet"):
        OneShot(toy(), 0, epochs=1).solve({"latency_ms": 100.0})


@pytest.mark.parametrize(
    "settings", [{"paths": "all"}, {"rate": 0.0}, {"rate": 1.0}, {"ghost": 0}, {"samples": 0}, {"refine": -1}]
)
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError):
        setting(**settings)

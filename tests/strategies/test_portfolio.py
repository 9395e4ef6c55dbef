from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sartor.core.abilities import Pretrained
from sartor.core.contracts import CostModel, Evaluator, Problem, Space
from sartor.core.errors import BudgetError, CapabilityError, ConfigError
from sartor.core.records import Choice, Constraint, Objective, Proposal, Trial
from sartor.strategies.portfolio import LOOK, Portfolio

BEST = np.array([24, 10, 30, 6, 18])


class Layers(Space, Pretrained):
    """Five widths; the area is their sum of products of neighbours."""

    choices = tuple(Choice(name, tuple(range(1, 33)), ordered=True) for name in "abcde")
    trained = True

    def build(self, arch):
        raise AssertionError("a search builds no network")

    def scaled(self, factor):
        return tuple(int(np.clip(round(32 * factor) - 1, 0, 31)) for _ in range(5))

    def plans(self):
        def powers(*line):
            return lambda f: tuple(int(np.clip(round(32 * f**p) - 1, 0, 31)) for p in line)

        return {
            "uniform": self.scaled,
            "first": powers(0.3, 1, 1, 1, 1),
            "third": powers(1, 1, 0.3, 1, 1),
            "whole": powers(0, 0, 0, 0, 0),
        }


class Area(CostModel):
    metric = "area"

    def __call__(self, archs):
        width = torch.tensor(archs, dtype=torch.float64) + 1
        return (width[:, 1:] * width[:, :-1]).sum(1)


class Quality(Evaluator):
    """Best at certain proportions; a look knows only about how far it is, a training shows it all."""

    def __call__(self, proposal, seed):
        logs = np.log((np.array(proposal.arch) + 1) / BEST)
        apart = float(logs.std() + 0.05 * abs(logs.mean()))
        return {"quality": round(1 - apart, 1) if proposal.fidelity <= LOOK else 1 - apart, "distance": apart}


def problem(limit=1200.0, levels=()):
    constraint = Constraint("area", limit, levels)
    return Problem(Layers(), (Objective("quality", "max"),), (constraint,), {"area": Area()})


def run(search, evaluator=None):
    evaluator = evaluator or Quality()
    trials = []
    while proposals := search.ask():
        batch = []
        for proposal in proposals:
            batch.append(Trial(len(trials), proposal.arch, proposal.fidelity, evaluator(proposal, 0)))
            trials.append(batch[-1])
        search.tell(batch)
    return trials


def area(arch):
    return float(Area()([arch])[0])


def test_plans_come_first_then_combinations_then_the_knockout():
    trials = run(Portfolio(problem(), 0, refine=8, batch=4, finalists=4))
    assert [t.fidelity for t in trials] == [LOOK] * 11 + [0.125] * 4 + [0.25] * 2 + [0.5]
    looked = {t.arch for t in trials[:11]}
    assert len(looked) == 11
    assert {t.arch for t in trials[11:]} <= looked


def test_every_network_uses_the_budget():
    trials = run(Portfolio(problem(), 0))
    assert all(0.97 * 1200 <= area(t.arch) <= 1200 for t in trials)


def test_combinations_get_nearer_than_any_plan():
    trials = run(Portfolio(problem(), 0, refine=40))
    plans, looked = trials[:3], [t for t in trials if t.fidelity == LOOK]
    best = min(t.metrics["distance"] for t in plans)
    assert min(t.metrics["distance"] for t in looked) < 0.8 * best


def test_the_uniform_plan_is_a_finalist():
    trials = run(Portfolio(problem(), 0, refine=24))
    uniform = trials[0].arch
    assert uniform in {t.arch for t in trials if t.fidelity == 0.125}


def test_the_answer_is_the_winner_of_the_knockout():
    search = Portfolio(problem(), 0)
    trials = run(search)
    assert search.solve({"area": 1200.0}) == trials[-1].arch


def test_other_limits_get_the_winners_proportions():
    search = Portfolio(problem(), 0)
    winner = run(search)[-1].arch
    smaller, larger = search.solve({"area": 1100.0}), search.solve({"area": 1300.0})
    assert 0.97 * 1100 <= area(smaller) <= 1100
    assert 1200 < area(larger) <= 1300
    for other in (smaller, larger):
        logs = np.log((np.array(other) + 1) / (np.array(winner) + 1))
        assert logs.std() < 0.1


def test_every_level_has_its_own_search():
    search = Portfolio(problem(1200.0, (600.0,)), 0, refine=4)
    trials = run(search)
    below = [t for t in trials if area(t.arch) <= 600]
    assert len(below) >= len(trials) // 3
    assert area(search.solve({"area": 600.0})) <= 600


def test_before_any_trial_it_scales():
    search = Portfolio(problem(), 0)
    assert 0.97 * 1200 <= area(search.solve({"area": 1200.0})) <= 1200
    with pytest.raises(BudgetError):
        search.solve({"area": 1.0})


def test_without_a_distance_the_objective_ranks():
    class Plain(Quality):
        def __call__(self, proposal, seed):
            return {"quality": super().__call__(Proposal(proposal.arch), seed)["quality"]}

    search = Portfolio(problem(), 0)
    trials = run(search, Plain())
    looked = [t for t in trials if t.fidelity == LOOK]
    best = max(looked, key=lambda t: t.metrics["quality"])
    assert best.arch in {t.arch for t in trials if t.fidelity == 0.125}


def test_failures_do_not_stop_it():
    search = Portfolio(problem(), 0, refine=8)
    index = 0
    while proposals := search.ask():
        search.tell([Trial(index + i, p.arch, p.fidelity, {}, error="no memory") for i, p in enumerate(proposals)])
        index += len(proposals)
    assert area(search.solve({"area": 1200.0})) <= 1200


def test_untrained_networks_are_trained_from_the_first_look():
    class Raw(Layers):
        trained = False

    trials = run(Portfolio(replace(problem(), space=Raw()), 0))
    assert [t.fidelity for t in trials] == [0.125] * 3 + [0.25] * 3 + [0.5] * 2 + [1.0]


def test_no_finalists_no_trainings():
    assert {t.fidelity for t in run(Portfolio(problem(), 0, finalists=0))} == {LOOK}


def test_bad_settings_and_spaces_are_refused():
    for wrong in ({"refine": -1}, {"finalists": -1}, {"eta": 1}, {"first": 0.0}, {"batch": 0}):
        with pytest.raises(ConfigError):
            Portfolio(problem(), 0, **wrong)

    class Bare(Space):
        choices = Layers.choices

        def build(self, arch):
            raise AssertionError("a search builds no network")

    with pytest.raises(CapabilityError, match="Scalable"):
        Portfolio(replace(problem(), space=Bare()), 0)

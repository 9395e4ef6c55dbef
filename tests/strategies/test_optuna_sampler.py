from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from sartor.core.errors import CapabilityError, ConfigError, MissingExtraError
from sartor.core.records import Objective, Trial
from sartor.strategies.optuna_sampler import SAMPLERS, OptunaSampler

from strategies.searching import problem, search  # isort: skip

optuna = pytest.importorskip("optuna")
SMALL = {"nsga2": {"population_size": 6}, "nsga3": {"population_size": 6}, "gp": {"n_startup_trials": 5}}


def score(arch):
    return -sum((a - 3) ** 2 for a in arch)


def sampler_of(name, trials, **settings):
    space = problem(6, 6, 6, upper=9, ordered=name == "cmaes")
    return OptunaSampler(space, 0, trials=trials, batch=3, sampler=name, options=SMALL.get(name), **settings)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_stays_inside_and_goes_on_from_its_state(name):
    count, first = (9, 6) if name == "gp" else (21, 12)
    whole = sampler_of(name, count)
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    trials = search(whole, score)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert len(trials) == count
    assert all(sum(t.arch) <= 9 for t in trials)
    half = sampler_of(name, first)
    search(half, score)
    again = sampler_of(name, count)
    again.load_state_dict(half.state_dict())
    again.recall(half.trials)
    rest = search(again, score)
    assert [t.arch for t in rest] == [t.arch for t in trials[first:]]


def test_tpe_and_cmaes_learn():
    for name in ("tpe", "cmaes"):
        space = problem(12, 12, 12, upper=30, ordered=True)
        trials = search(OptunaSampler(space, 1, trials=80, sampler=name), score)
        means = [np.mean([t.metrics["accuracy"] for t in part]) for part in (trials[:15], trials[-15:])]
        assert means[1] > means[0] / 2


def test_what_is_over_budget_is_pruned_and_the_sampler_told_by_how_much():
    strategy = OptunaSampler(problem(6, 6, upper=4), 0, trials=30)
    trials = search(strategy, sum)
    study = strategy._study.trials
    inside = [t for t in study if t.state.name == "COMPLETE"]
    outside = [t for t in study if t.state.name == "PRUNED"]
    assert len(inside) + len(outside) == len(study)
    assert len(inside) == 30
    assert len(outside) > 3
    assert all(sum(t.params.values()) > 4 for t in outside)
    assert [tuple(t.params.values()) for t in inside] == [t.arch for t in trials]
    if hasattr(study[0], "constraints"):
        assert all(t.constraints["sum"] == pytest.approx(sum(t.params.values()) / 4 - 1) for t in study)


def test_repair_where_nothing_is_pruned():
    strategy = OptunaSampler(problem(6, 6, upper=2), 0, trials=20, sampler="random", tries=0)
    trials = search(strategy, sum)
    assert len(strategy._study.trials) == 20
    assert all(sum(t.arch) <= 2 for t in trials)
    suggested = [tuple(t.params.values()) for t in strategy._study.trials]
    assert any(s != t.arch for s, t in zip(suggested, trials, strict=True))
    assert [t.value for t in strategy._study.trials] == [t.metrics["accuracy"] for t in trials]


def test_failures_are_told():
    strategy = OptunaSampler(problem(6, 6), 0, trials=20, batch=4)
    trials = search(strategy, lambda a: None if a[0] < 2 else sum(a))
    states = [t.state.name for t in strategy._study.trials]
    assert states == ["COMPLETE" if t.ok else "FAIL" for t in trials]
    assert "FAIL" in states


def test_several_objectives():
    two = replace(problem(6, 6), objectives=(Objective("accuracy", "max"), Objective("sum", "min")))
    strategy = OptunaSampler(two, 0, trials=12, sampler="nsga2", options={"population_size": 4})
    while proposals := strategy.ask():
        at = len(strategy.trials)
        strategy.tell(
            [Trial(at + i, p.arch, 1.0, {"accuracy": p.arch[0], "sum": sum(p.arch)}) for i, p in enumerate(proposals)]
        )
    assert [d.name for d in strategy._study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert all(
        t.values == [s.metrics["accuracy"], s.metrics["sum"]]
        for t, s in zip(strategy._study.trials, strategy.trials, strict=True)
    )
    with pytest.raises(CapabilityError, match="cmaes takes one objective"):
        OptunaSampler(two, 0, sampler="cmaes")


def test_a_history_that_optuna_would_not_repeat_is_kept():
    half = sampler_of("tpe", 12)
    search(half, score)
    again = sampler_of("tpe", 15)
    again.load_state_dict(half.state_dict())
    again.recall([*half.trials[:6], replace(half.trials[6], arch=(0, 0, 0)), *half.trials[7:]])
    assert len(search(again, score)) == 3
    complete = [t for t in again._study.trials if t.state.name == "COMPLETE"]
    assert len(complete) == 15
    assert (0, 0, 0) in [tuple(t.params.values()) for t in again._study.trials]


def test_what_does_not_fit():
    with pytest.raises(ConfigError, match="no sampler 'tree'; known: tpe"):
        OptunaSampler(problem(2), 0, sampler="tree")
    with pytest.raises(CapabilityError, match="cmaes needs ordered choices, 'c0' is not"):
        OptunaSampler(problem(4), 0, sampler="cmaes")
    with pytest.raises(ConfigError, match=r"TPESampler does not take \{'speed': 3\}"):
        OptunaSampler(problem(2), 0, options={"speed": 3})


def test_without_optuna_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"needs optuna: pip install 'sartor\[optuna\]'"):
        OptunaSampler(problem(2), 0)

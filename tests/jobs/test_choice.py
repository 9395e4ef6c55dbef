"""The chooser against a target whose true latencies are known: the model is wrong, the measurement is right."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sartor.core.errors import BudgetError
from sartor.core.records import Objective, Trial
from sartor.jobs.choice import Chooser, solve, uniform
from sartor.measure import Estimate
from sartor.run.progress import Silent
from sartor.spaces.tiny import Tiny

SPACE = Tiny(depth=1, widths=tuple(range(4, 204, 4)))  # fifty widths, one choice


def modelled(archs):
    return torch.tensor([float(a[0] + 1) for a in archs], dtype=torch.float64)


class Truth:
    """A meter: what the target takes is `factor` times what the model says, with a small interval."""

    def __init__(self, factor):
        self.factor, self.asked = factor, []

    def compare(self, networks, *, rounds):
        self.asked += networks.values()
        value = {n: self.factor * float(modelled([a])[0]) for n, a in networks.items()}
        return {n: Estimate(v, 0.99 * v, 1.01 * v) for n, v in value.items()}


def chooser(meter):
    ledger = SimpleNamespace(count=lambda **_: None, book=lambda: None)
    job = SimpleNamespace(display=Silent(), ledger=ledger, parts=SimpleNamespace(space=SPACE))

    def propose(limits):
        inside = [(k,) for k in range(50) if k + 1 <= limits["latency_ms"]]
        if not inside:
            raise BudgetError("none")
        return inside[-1]

    return Chooser(job, meter, propose, {"latency_ms": modelled})


@pytest.mark.parametrize("factor", [0.7, 0.9, 1.0, 1.1, 1.4])
def test_finds_a_network_whose_measured_interval_is_inside_and_close_to_the_budget(factor):
    meter = Truth(factor)
    found = chooser(meter).choose({"latency_ms": 25.0})
    upper = 1.01 * factor * (found["arch"][0] + 1)
    assert 0.9 * 25 <= upper <= 25
    assert found["limit"] is not None
    assert len(found["looks"]) == len(meter.asked) <= 6
    assert len({tuple(look["arch"]) for look in found["looks"]}) == len(found["looks"]), "measured one network twice"


def test_a_hopeless_budget_says_what_was_measured():
    with pytest.raises(
        BudgetError, match=r"no network was found whose measured latency is inside 0.5 ms \(measured: 3"
    ):
        chooser(Truth(3.0)).choose({"latency_ms": 0.5})


def test_without_a_latency_budget_nothing_is_measured():
    found = Chooser(SimpleNamespace(), None, lambda limits: (3,), {}).choose({"macs": 5.0})
    assert found == {"arch": [3], "looks": [], "limit": None}


def test_the_best_feasible_trial_answers_for_strategies_that_cannot():
    trials = [
        Trial(0, (3,), 1.0, {"accuracy": 0.7}),
        Trial(1, (9,), 1.0, {"accuracy": 0.9}),
        Trial(2, (4,), 1.0, {"accuracy": 0.8}),
        Trial(3, (2,), 1.0, {}, error="diverged"),
    ]
    costs, objective = {"latency_ms": modelled}, Objective("accuracy", "max")
    assert solve(object(), trials, costs, {"latency_ms": 6.0}, objective) == (4,)
    with pytest.raises(BudgetError, match="none of the 4 trials"):
        solve(object(), trials, costs, {"latency_ms": 2.0}, objective)


def test_uniform_is_the_widest_scaling_inside_all_limits():
    job = SimpleNamespace(parts=SimpleNamespace(space=SPACE))
    assert uniform(job, {"latency_ms": modelled}, {"latency_ms": 10.0}) == (9,)
    with pytest.raises(BudgetError, match="no uniformly scaled network"):
        uniform(job, {"latency_ms": modelled}, {"latency_ms": 0.5})

"""The chooser against a target whose true latencies are known: the model is wrong, the measurement is right."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from sartor.core.errors import BudgetError
from sartor.core.records import Estimate
from sartor.jobs.fit.choose import Chooser, Pick, Uniform
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


def job():
    ledger = SimpleNamespace(count=lambda **_: None, book=lambda: None)
    return SimpleNamespace(display=Silent(), ledger=ledger, parts=SimpleNamespace(space=SPACE))


class Widest:
    """Names the widest network under the limit, and has tried none."""

    def propose(self, limits):
        inside = [(k,) for k in range(50) if k + 1 <= limits["latency_ms"]]
        if not inside:
            raise BudgetError("none")
        return inside[-1]

    def ranked(self, limits):
        return []


@dataclass(frozen=True)
class Tried:
    """Names the best of its trials."""

    accuracies: dict

    def propose(self, limits):
        return self.ranked(limits)[0] if self.ranked(limits) else Widest().propose({"latency_ms": 0.0})

    def ranked(self, limits):
        inside = [a for a in self.accuracies if a[0] + 1 <= limits["latency_ms"]]
        return sorted(inside, key=self.accuracies.get, reverse=True)


def chooser(meter):
    return Chooser(job(), meter, {"latency_ms": modelled}, Widest())


class Uneven(Truth):
    """A model that is right about some networks and wrong about others."""

    def __init__(self, factors):
        super().__init__(1.0)
        self.factors = factors

    def compare(self, networks, *, rounds):
        self.factor = self.factors.get(networks["candidate"], 1.0)
        return super().compare(networks, rounds=rounds)


def by_trials(meter, accuracies):
    """A chooser for a search that has evaluated some widths."""
    return Chooser(job(), meter, {"latency_ms": modelled}, Tried(accuracies))


def test_where_the_best_trial_is_slower_than_modelled_the_next_best_ones_are_measured():
    """No other trial suffers for what the model errs about one, and one modelled a little over gets its chance."""
    trials = {(25,): 0.95, (24,): 0.9, (23,): 0.8, (10,): 0.7}
    meter = Uneven({(25,): 0.9, (24,): 1.3})
    assert by_trials(meter, trials).choose({"latency_ms": 25.0}).arch == (25,)
    meter = Uneven({(25,): 1.1, (24,): 1.3})
    found = by_trials(meter, trials).choose({"latency_ms": 25.0})
    assert found.arch == (23,)
    assert meter.asked == [(25,), (24,), (23,)]


def test_where_no_trial_is_inside_the_limit_is_lowered():
    trials = {(k,): k / 100 for k in range(5, 25)}
    found = by_trials(Uneven({(k,): 1.5 for k in range(50)}), trials).choose({"latency_ms": 25.0})
    assert 1.01 * 1.5 * (found.arch[0] + 1) <= 25


@pytest.mark.parametrize("factor", [0.7, 0.9, 1.0, 1.1, 1.4])
def test_finds_a_network_whose_measured_interval_is_inside_and_close_to_the_budget(factor):
    meter = Truth(factor)
    found = chooser(meter).choose({"latency_ms": 25.0})
    upper = 1.01 * factor * (found.arch[0] + 1)
    assert 0.9 * 25 <= upper <= 25
    assert len(found.looks) == len(meter.asked) <= 6
    assert len({look.arch for look in found.looks}) == len(found.looks), "measured one network twice"


@dataclass(frozen=True)
class Scaled(Tried):
    """Names its best trial where that uses the limit, else the widest network."""

    def propose(self, limits):
        best = super().propose(limits)
        return best if limits["latency_ms"] <= 30 else Widest().propose(limits)


def test_room_that_the_best_trial_leaves_is_used_by_a_search_that_can_tell():
    """The model says 30 for what takes 24: a network of 37 is inside."""
    asked = Scaled({(29,): 0.9, (20,): 0.8})
    pick = Chooser(job(), Truth(0.8), {"latency_ms": modelled}, asked).choose({"latency_ms": 30.0})
    assert pick.looks[0].arch == (29,)
    assert 0.97 * 30 <= 1.01 * 0.8 * (pick.arch[0] + 1) <= 30


def test_room_is_left_by_a_search_that_names_trials_only():
    asked = Tried({(29,): 0.9, (20,): 0.8})
    pick = Chooser(job(), Truth(0.8), {"latency_ms": modelled}, asked).choose({"latency_ms": 30.0})
    assert pick.arch == (29,)
    assert len(pick.looks) == 1


def test_a_hopeless_budget_says_what_was_measured():
    with pytest.raises(
        BudgetError, match=r"no network was found whose measured latency is inside 0.5 ms \(measured: 3"
    ):
        chooser(Truth(3.0)).choose({"latency_ms": 0.5})


def test_without_a_latency_budget_nothing_is_measured():
    asked = SimpleNamespace(propose=lambda limits: (3,))
    assert Chooser(SimpleNamespace(), None, {}, asked).choose({"macs": 5.0}) == Pick((3,))


def test_uniform_is_the_widest_scaling_inside_all_limits():
    scaling = Uniform(SPACE, {"latency_ms": modelled})
    assert scaling.propose({"latency_ms": 10.0}) == (9,)
    assert scaling.ranked({"latency_ms": 10.0}) == []
    with pytest.raises(BudgetError, match="no uniformly scaled network"):
        scaling.propose({"latency_ms": 0.5})

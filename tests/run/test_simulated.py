from __future__ import annotations

from collections import deque

import pytest

from run.toys import Draws, problem
from sartor.core.contracts import Evaluator
from sartor.core.errors import BudgetSpentError, CapabilityError
from sartor.core.records import Proposal
from sartor.run.journal import MemoryJournal
from sartor.run.lab import JournaledLab
from sartor.run.simulated import SimulatedLab


class Seeded(Evaluator):
    def __call__(self, proposal, seed):
        return {"score": sum(proposal.arch) + seed % 1000}


PROPOSALS = [Proposal((0, 1)), Proposal((1, 1), 0.5, parent=0), Proposal((0, 1))]


def simulated(max_trials=10):
    costs = problem().costs or {}
    return SimulatedLab(
        Seeded(), 3, max_trials=max_trials, costs=lambda arch: {m: float(c([arch])[0]) for m, c in costs.items()}
    )


def test_trials_are_those_of_the_real_lab():
    real = JournaledLab(problem(), Seeded(), MemoryJournal(), 3)
    assert simulated().evaluate(PROPOSALS) == real.evaluate(PROPOSALS)


def test_it_stops_where_it_is_told_and_keeps_what_was_made():
    lab = simulated(max_trials=2)
    with pytest.raises(BudgetSpentError):
        lab.evaluate(PROPOSALS)
    assert [t.index for t in lab.trials] == [0, 1]


def test_a_strategy_runs_in_it():
    lab = simulated(max_trials=7)
    strategy = Draws(problem(), 0)
    assert strategy.step(lab)
    with pytest.raises(BudgetSpentError):
        deque(iter(lambda: strategy.step(lab), False), maxlen=0)
    assert len(lab.trials) == 7


def test_there_is_no_folder():
    lab = simulated()
    lab.log(loss=1.0)
    lab.progress(1, 2)
    with pytest.raises(CapabilityError, match=r"supernet\.safetensors"):
        lab.artifact("supernet.safetensors")

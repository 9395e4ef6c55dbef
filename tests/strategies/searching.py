"""Ask, look the answer up, tell: what the tests of multi-trial strategies run on."""

from __future__ import annotations

import torch

from sartor.core.contracts import CostModel, Problem, Space
from sartor.core.records import Choice, Constraint, Objective, Trial


class Plain(Space):
    """Choices without a network."""

    def __init__(self, *sizes, ordered=False):
        self.choices = tuple(Choice(f"c{i}", tuple(range(n)), ordered=ordered) for i, n in enumerate(sizes))

    def build(self, arch):
        raise AssertionError("a search builds no network")


class Sum(CostModel):
    metric = "sum"

    def __call__(self, archs):
        return torch.tensor([float(sum(a)) for a in archs], dtype=torch.float64)


def problem(*sizes, upper=None, ordered=False, goal="max"):
    """Accuracy to maximise, and at most `upper` as the sum of the indices."""
    limits = () if upper is None else (Constraint("sum", upper),)
    return Problem(Plain(*sizes, ordered=ordered), (Objective("accuracy", goal),), limits, {"sum": Sum()})


def judged(proposals, score, start=0):
    """Trials; a score of None is a failure."""
    trials = []
    for i, p in enumerate(proposals, start):
        value = score(p.arch)
        error = "failed" if value is None else None
        trials.append(Trial(i, p.arch, p.fidelity, {} if error else {"accuracy": float(value)}, error))
    return trials


def search(strategy, score, after=None):
    """All trials until the strategy ends; `after` sees each batch once it is told."""
    trials = []
    while proposals := strategy.ask():
        batch = judged(proposals, score, len(trials))
        strategy.tell(batch)
        trials += batch
        if after is not None:
            after(batch)
    return trials

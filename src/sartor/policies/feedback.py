"""What a policy is told and asked: a reward per trial, and draws within the budget where the reward ignores costs."""

from __future__ import annotations

import numpy as np

from sartor.core.contracts import Problem
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Trial
from sartor.policies.softmax import Ints, Policy
from sartor.regions.region import Region
from sartor.rewards import WEIGHTS, Kind, check_maximised, reward

BLOCK, TRIES = 64, 32
"""Draws from the policy at a time, and how often before a network is repaired instead."""


class Feedback:
    """The way between a policy and a problem.

    Args:
        problem: What is searched.
        kind: The reward.
        weight: Of the cost in the reward; 0 takes its source's.
        perfect: The metric of a perfect network: 1 for an accuracy as a fraction, 100 for one in per cent.

    Raises:
        ConfigError: There is no such reward, or it does not fit the problem.
    """

    def __init__(self, problem: Problem, kind: Kind, weight: float, perfect: float) -> None:
        self.objective, self.region = problem.objectives[0], Region(problem)
        if kind not in WEIGHTS:
            raise ConfigError(f"no reward called {kind!r}; known: {', '.join(WEIGHTS)}")
        if perfect <= 0:
            raise ConfigError(f"perfect is {perfect}; it must be positive: 1 for fractions, 100 for per cent")
        if kind.startswith("mnas"):
            check_maximised(kind, self.objective)
        self.kind, self.weight, self.perfect = kind, weight or None, perfect

    @property
    def rejects(self) -> bool:
        """Whether networks outside of the budget are not evaluated at all."""
        return self.kind == "feasible"

    def __call__(self, trial: Trial) -> float:
        """The reward of a trial that has not failed."""
        quality = -self.objective.loss(trial) / self.perfect
        return reward(self.kind, quality, self.region.ratios(trial.arch), self.weight)

    def draw(self, policy: Policy, rng: np.random.Generator, count: int) -> tuple[list[Arch], Ints]:
        """Networks from the policy; those outside of the budget are drawn again where they must be.

        Returns:
            `count` networks, and further draws within the budget, `(m, n)`, from which the mass of the policy there can
            be estimated: none where nothing was rejected.

        Raises:
            BudgetError: No network is within the budget.
        """
        canonical = self.region.space.canonical
        if not (self.rejects and self.region.limits):
            return [canonical(tuple(row)) for row in policy.draw(rng, count).tolist()], _none(policy)
        kept, drawn = _none(policy), 0
        for _ in range(TRIES):
            index = policy.draw(rng, count + BLOCK)
            kept, drawn = np.concatenate([kept, index[self.region.inside(index)]]), drawn + len(index)
            if len(kept) >= count:
                break
        found = [canonical(tuple(row)) for row in kept[:count].tolist()]
        rest = [canonical(tuple(row)) for row in index[: count - len(found)].tolist()]
        found += [self.region.repair(arch, rng) for arch in rest]
        return found, _none(policy) if len(kept) == drawn else kept[count:]


def _none(policy: Policy) -> Ints:
    return np.zeros((0, policy.n), dtype=np.int64)

"""Hyperband: successive halving with few networks trained long, and with many trained shortly (Li et al., JMLR 2018).

All brackets of the paper's table, the most hurried one first (arXiv:1603.06560). Deviations: brackets go round until
`trials` are used; a network that is promoted is trained anew, not continued; a failed one is never promoted.
"""

from __future__ import annotations

from sartor.core.contracts import Problem
from sartor.regions.brackets import hyperband, steps
from sartor.regions.knockouts import Knockout

__all__ = ["Hyperband"]


class Hyperband(Knockout):
    """Random networks in knock-outs that start at different fidelities.

    Args:
        problem: Any problem; its evaluator should be cheaper at a lower fidelity.
        seed: Of the draws.
        trials: How many evaluations are made, whatever their fidelity.
        batch: How many are proposed at a time.
        eta: One in so many is promoted, and trained so many times longer.
        least: Smallest fidelity, as a fraction of the full training; rounded up to a power of `1 / eta`.
    """

    smoke = {"trials": 20, "batch": 4, "least": 1 / 3}

    def __init__(
        self, problem: Problem, seed: int, *, trials: int = 100, batch: int = 1, eta: int = 3, least: float = 1 / 9
    ) -> None:
        super().__init__(problem, seed, hyperband(steps(least, eta), eta), trials=trials, batch=batch)

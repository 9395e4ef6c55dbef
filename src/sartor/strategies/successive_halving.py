"""Successive halving: train many networks shortly, the best of them longer (Jamieson and Talwalkar, AISTATS 2016).

The rungs are those of one bracket of Hyperband (Li et al., JMLR 2018): `floor(networks * eta ** -i)` networks at the
fidelity `eta ** (i - s)`, the last at full fidelity. Deviations: when a bracket is done, the next one starts with new
random networks until `trials` are used; a network that is promoted is trained anew, not continued; a failed one is
never promoted.
"""

from __future__ import annotations

from sartor.core.contracts import Problem
from sartor.regions.brackets import bracket, steps
from sartor.regions.knockouts import Knockout
from sartor.regions.region import at_least_one

__all__ = ["SuccessiveHalving"]


class SuccessiveHalving(Knockout):
    """Random networks in a knock-out at rising fidelity.

    Args:
        problem: Any problem; its evaluator should be cheaper at a lower fidelity.
        seed: Of the draws.
        trials: How many evaluations are made, whatever their fidelity.
        batch: How many are proposed at a time.
        networks: How many a bracket starts.
        eta: One in so many is promoted, and trained so many times longer.
        least: Smallest fidelity, as a fraction of the full training; rounded up to a power of `1 / eta`.
    """

    smoke = {"trials": 20, "batch": 4, "networks": 9}

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        trials: int = 100,
        batch: int = 1,
        networks: int = 27,
        eta: int = 3,
        least: float = 1 / 9,
    ) -> None:
        at_least_one(networks=networks)
        super().__init__(problem, seed, [bracket(networks, steps(least, eta), eta)], trials=trials, batch=batch)

"""A closed-form accuracy that costs nothing, for tests and examples.

Every choice adds a saturating gain with a weight of its own, and neighbouring choices help each other a little, so that
the best network under a budget is neither uniform nor found choice by choice. Within each choice a later option is
always better: the optimum without a budget is the last option everywhere. A space that accounts for the metric itself,
as `burger` does for its taste, is believed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

from sartor.core.abilities import Accounted
from sartor.core.contracts import Evaluator, Problem
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Proposal
from sartor.core.rng import derive, numpy_rng

__all__ = ["Synthetic"]


class Synthetic(Evaluator):
    """Accuracy in (0, 1), rising with every option index and with the fidelity; or what the space says.

    Args:
        metric: Name of the metric; if the space has tables of it, only the noise is added to them.
        interaction: Share of the gain that comes from pairs of neighbouring choices, in [0, 1].
        noise: Standard deviation of the noise that the trial's seed adds; 0 makes it exact.
        landscape: Which weights the choices have.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        metric: str = "accuracy",
        interaction: float = 0.2,
        noise: float = 0.0,
        landscape: int = 0,
    ) -> None:
        if not 0 <= interaction <= 1:
            raise ConfigError(f"interaction must be in [0, 1], got {interaction}")
        if noise < 0:
            raise ConfigError(f"noise must not be negative, got {noise}")
        self.space = problem.space
        self.metric = metric
        self.interaction = interaction
        self.noise = noise
        # Weights between 1 and 3: every choice matters, none decides alone.
        raw = [1 + 2 * derive(landscape, "weight", i) / 2**63 for i in range(len(self.space.choices))]
        self.weights = [w / sum(raw) for w in raw]
        self.tables = self.space.account(metric) if isinstance(self.space, Accounted) else None

    def __call__(self, proposal: Proposal, seed: int) -> Mapping[str, float]:
        """The metric; `seed` matters only if there is noise."""
        if self.tables is not None:
            value = self.tables.cost(proposal.arch)
        else:
            value = 0.1 + 0.89 * self._gain(self.space.canonical(proposal.arch)) * proposal.fidelity**0.1
        if self.noise:
            value += self.noise * float(numpy_rng(seed, "noise").standard_normal())
        return {self.metric: value}

    def _gain(self, arch: Arch) -> float:
        """In (0, 1], and 1 for the last option everywhere."""
        sizes = [(a + 1) / len(c.options) for a, c in zip(arch, self.space.choices, strict=True)]
        gains = [(1 - math.exp(-3 * s)) / (1 - math.exp(-3)) for s in sizes]
        alone = sum(w * g for w, g in zip(self.weights, gains, strict=True))
        if len(gains) == 1:
            return alone
        pairs = sum(a * b for a, b in pairwise(gains)) / (len(gains) - 1)
        return (1 - self.interaction) * alone + self.interaction * pairs

"""NASNet's search: a recurrent controller draws one option after the other, PPO trains it (Zoph et al., CVPR 2018).

Source: arXiv:1707.07012; the clipped objective is that of Schulman et al. (2017, arXiv:1707.06347). One LSTM of 100
units reads the choices of any space in their order, each with the option drawn before it, and ends in a softmax per
choice. Deviations:

* The paper trains 20,000 networks with a step of 0.00035 and an entropy bonus of 0.00001. The defaults suit hundreds;
  these two settings, and `momentum = 0.95` of the baseline, can be the paper's.
* Rewards less their average are divided by their standard deviation, so that the unit of the metric does not matter.
* A network that is known, or outside of the limits, is drawn again and never evaluated. Failed networks teach nothing.
* Weights of the controller are those that PyTorch starts with; the paper's are uniform within 0.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sartor.core.contracts import AskTell, Problem
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Proposal, Trial
from sartor.core.rng import derive, numpy_rng
from sartor.policies.baselines import Baseline
from sartor.policies.recurrent import Recurrent
from sartor.policies.softmax import Floats, Ints
from sartor.regions.region import Region, answer, at_least_one
from sartor.surrogates.embedding import one_thread

__all__ = ["Nasnet"]

BLOCK, TRIES = 32, 16
"""Draws at a time beyond those needed, and how often before random networks are taken instead."""
RANDOM = 1000
"""Random draws that may end in networks already tried, before the search is over."""


class Nasnet(AskTell):
    """Proximal policy optimisation of a recurrent controller.

    Args:
        problem: Any problem.
        seed: Of the initial weights and the draws.
        trials: How many networks are evaluated; fewer where a small space is exhausted.
        batch: How many are proposed at a time; the controller moves after each batch.
        hidden: Units of the LSTM.
        updates: Gradient steps per batch.
        clip: How far the ratio of new to old probability may be from 1 before a network no longer pulls it further.
        lr: Step size of Adam.
        entropy: Weight of the controller's entropy.
        momentum: Of the average that is subtracted from the rewards, in [0, 1).
    """

    saved = ("rng", "policy", "baseline")
    smoke = {"trials": 14, "batch": 4, "hidden": 4, "updates": 2}

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        trials: int = 100,
        batch: int = 10,
        hidden: int = 100,
        updates: int = 5,
        clip: float = 0.2,
        lr: float = 0.005,
        entropy: float = 0.01,
        momentum: float = 0.9,
    ) -> None:
        at_least_one(trials=trials, batch=batch, hidden=hidden, updates=updates)
        if lr <= 0 or clip <= 0 or entropy < 0 or not 0 <= momentum < 1:
            raise ConfigError(
                f"lr is {lr}, clip {clip}, entropy {entropy} and momentum {momentum}; lr and clip must be positive, "
                "entropy not negative, momentum in [0, 1)"
            )
        self.problem, self.seed, self.total, self.batch = problem, seed, trials, batch
        self.updates, self.clip, self.entropy = updates, clip, entropy
        sizes = [len(c.options) for c in problem.space.choices]
        self.policy = Recurrent(
            torch.eye(len(sizes)),
            sizes,
            derive(seed, "controller"),
            hidden=hidden,
            layers=1,
            lr=lr,
            autoregressive=True,
        )
        self.region, self.rng, self.baseline = Region(problem), numpy_rng(seed, "draws"), Baseline(momentum)
        self.trials: list[Trial] = []
        self._told, self._read, self._known = self.trials, 0, set[Arch]()

    def ask(self) -> list[Proposal]:
        """Draws from the controller."""
        if self._told is not self.trials:
            self._told, self._read, self._known = self.trials, 0, set()
        self._known |= {t.arch for t in self.trials[self._read :]}
        self._read = len(self.trials)
        count = min(self.batch, self.total - len(self.trials))
        return [Proposal(arch) for arch in self._drawn(count)] if count > 0 else []

    def tell(self, trials: Sequence[Trial]) -> None:
        """Move the controller; failed networks teach nothing."""
        self.trials += trials
        good = [t for t in trials if t.ok]
        if not good:
            return
        rewards = np.array([-self.problem.objectives[0].loss(t) for t in good])
        gains = rewards - [self.baseline.update(r) for r in rewards.tolist()]
        self._learn(np.array([t.arch for t in good]), gains / (float(rewards.std()) or 1.0))

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The best evaluated network under `limits`; if none meets them, a random one that does.

        Raises:
            BudgetError: No network meets them.
        """
        return answer(self.problem, self.trials, limits, numpy_rng(self.seed, "solve"))

    def _learn(self, index: Ints, gains: Floats) -> None:
        """Several steps of the clipped objective, each network weighed by its ratio."""
        old = self._logs(index)
        for _ in range(self.updates):
            ratios = np.exp(self._logs(index) - old)
            clipped = np.where(gains > 0, ratios > 1 + self.clip, ratios < 1 - self.clip)
            self.policy.ascend(index, np.where(clipped, 0.0, ratios * gains) / len(gains), self.entropy)

    def _logs(self, index: Ints) -> Floats:
        with torch.no_grad(), one_thread():
            return np.asarray(self.policy.log_probs(index).double().numpy())

    def _drawn(self, count: int) -> list[Arch]:
        """New networks within the limits."""
        found = dict[Arch, None]()
        for _ in range(TRIES):
            for row in self.policy.draw(self.rng, count + BLOCK).tolist():
                arch = self.problem.space.canonical(tuple(row))
                if len(found) < count and arch not in self._known and arch in self.region:
                    found[arch] = None
            if len(found) == count:
                return list(found)
        for _ in range(RANDOM):
            arch = self.region.sample(self.rng)
            if len(found) < count and arch not in self._known:
                found[arch] = None
        return list(found)

"""PPO: a softmax policy moved several steps per batch, but not far (Schulman et al., 2017, arXiv:1707.06347).

What NASNet and MnasNet search with, and one of the baselines of LayerNAS, without their recurrent network: here the
logits of a choice are free numbers or, with `autoregressive`, free numbers plus what each option chosen earlier adds.
The probability ratio is that of the whole network. Deviations:

* The learning rate suits searches of hundreds of networks; NASNet's 0.00035 was for tens of thousands.
* Rewards less their exponential average are divided by the batch's standard deviation, so that entropy means the same
  whatever the unit of the metric.
* With the reward `feasible`, networks outside of the budget are drawn again and never evaluated; the ratios are then
  those of the policy restricted to the budget, its mass estimated from cheap draws (after TabNAS, Yang et al., NeurIPS
  2022, arXiv:2204.07615).
* Failed networks teach nothing.
"""

from __future__ import annotations

import numpy as np

from sartor.core.contracts import Problem
from sartor.core.errors import ConfigError
from sartor.policies.feedback import Feedback
from sartor.policies.gradients import PolicyGradient
from sartor.policies.softmax import Floats, Ints
from sartor.regions.region import at_least_one
from sartor.rewards import Kind

__all__ = ["Ppo"]


class Ppo(PolicyGradient):
    """Proximal policy optimisation over the choices of a space.

    Args:
        problem: Any problem.
        seed: Of the initial logits and the draws.
        trials: How many networks are evaluated.
        batch: How many are proposed at a time; the policy moves after each batch.
        updates: Gradient steps per batch.
        clip: How far the ratio of new to old probability may be from 1 before a network no longer pulls it further.
        lr: Step size of Adam.
        entropy: Weight of the policy's entropy.
        momentum: Of the average that is subtracted from the rewards, in [0, 1).
        autoregressive: Whether a choice may depend on the earlier ones.
        reward: `feasible` draws networks within budget only; the others draw any and put the cost into the reward:
            `mnas_soft` and `mnas_hard` (MnasNet), `absolute` (TuNAS).
        weight: Of the cost in the reward; 0 takes the source's.
        perfect: The metric of a perfect network, for rewards that weigh it against costs: 1 for accuracies as
            fractions, 100 for per cent.
    """

    smoke = {"trials": 12, "batch": 4, "autoregressive": True}

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        trials: int = 100,
        batch: int = 10,
        updates: int = 10,
        clip: float = 0.2,
        lr: float = 0.05,
        entropy: float = 0.01,
        momentum: float = 0.95,
        autoregressive: bool = False,
        reward: Kind = "feasible",
        weight: float = 0.0,
        perfect: float = 1.0,
    ) -> None:
        at_least_one(updates=updates)
        if lr <= 0 or clip <= 0 or entropy < 0 or not 0 <= momentum < 1:
            raise ConfigError(
                f"lr is {lr}, clip {clip}, entropy {entropy} and momentum {momentum}; lr and clip must be positive, "
                "entropy not negative, momentum in [0, 1)"
            )
        feedback = Feedback(problem, reward, weight, perfect)
        super().__init__(
            problem,
            seed,
            feedback,
            trials=trials,
            batch=batch,
            lr=lr,
            momentum=momentum,
            autoregressive=autoregressive,
        )
        self.updates, self.clip, self.entropy = updates, clip, entropy

    def learn(self, index: Ints, gains: Floats, spread: float) -> None:
        """Move the policy by `updates` steps of the clipped objective."""
        gains = gains / (spread or 1.0)
        old = self.policy.log_probs(index, self.policy.probs(index))
        for _ in range(self.updates):
            self.policy.ascend(self.surrogate(index, gains, old))

    def surrogate(self, index: Ints, gains: Floats, old: Floats) -> list[Floats]:
        """Gradient of `mean(min(ratio * gain, clip(ratio) * gain))` plus the entropy's.

        Args:
            index: The `m` networks evaluated, then further draws within the budget (none where nothing is rejected),
                `(m + d, n)`.
            gains: Advantages of the former, `(m,)`.
            old: Log-probabilities of all when they were drawn, `(m + d,)`.
        """
        m, probs = len(gains), self.policy.probs(index)
        logs = self.policy.log_probs(index, probs) - old
        ratios, masses = np.exp(logs[:m]), np.exp(logs[m:])
        if len(masses):  # p(inside) over the old p(inside) is the mean of the ratios in there
            ratios = ratios / masses.mean()
        clipped = np.where(gains > 0, ratios > 1 + self.clip, ratios < 1 - self.clip)
        pull = np.where(clipped, 0.0, ratios * gains) / m
        weights = np.concatenate([pull, -pull.sum() * masses / (masses.sum() or 1.0)])
        return self.policy.gradient(index, weights, probs, self.entropy)

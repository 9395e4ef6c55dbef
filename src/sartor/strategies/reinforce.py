"""REINFORCE: one softmax per choice, moved by the rewards of the networks drawn (Williams, 1992; Zoph and Le, 2017).

The defaults are those of NATS-Bench (Dong et al., TPAMI 2021): initial logits of standard deviation 0.001, Adam with a
step of 0.01 after every network, rewards less their exponential average (momentum 0.9, without the bias of its start).
Deviations:

* With the reward `feasible`, networks outside of the budget are drawn again and never evaluated. What is drawn then
  follows the policy restricted to the budget, and the gradient is that of the restricted policy's log-probability, its
  mass estimated from cheap draws, as in TabNAS (Yang et al., NeurIPS 2022, arXiv:2204.07615): otherwise the policy
  drifts to where nearly all of its draws are rejected.
* With `batch` above one, one step is made per batch, with the mean of its gradients. Failed networks teach nothing.
"""

from __future__ import annotations

import numpy as np

from sartor.core.contracts import Problem
from sartor.core.errors import ConfigError
from sartor.policies.feedback import Feedback
from sartor.policies.gradients import PolicyGradient
from sartor.policies.softmax import Floats, Ints
from sartor.rewards import Kind

__all__ = ["Reinforce"]


class Reinforce(PolicyGradient):
    """Policy gradient over independent choices.

    Args:
        problem: Any problem.
        seed: Of the initial logits and the draws.
        trials: How many networks are evaluated.
        batch: How many are proposed at a time, and make one step together.
        lr: Step size of Adam.
        momentum: Of the average that is subtracted from the rewards, in [0, 1).
        reward: `feasible` draws networks within budget only; the others draw any and put the cost into the reward:
            `mnas_soft` and `mnas_hard` (MnasNet), `absolute` (TuNAS).
        weight: Of the cost in the reward; 0 takes the source's.
        perfect: The metric of a perfect network, for rewards that weigh it against costs: 1 for accuracies as
            fractions, 100 for per cent.
    """

    smoke = {"trials": 14, "batch": 3}

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        trials: int = 100,
        batch: int = 1,
        lr: float = 0.01,
        momentum: float = 0.9,
        reward: Kind = "feasible",
        weight: float = 0.0,
        perfect: float = 1.0,
    ) -> None:
        if lr <= 0 or not 0 <= momentum < 1:
            raise ConfigError(f"lr is {lr} and momentum is {momentum}; lr must be positive, momentum in [0, 1)")
        feedback = Feedback(problem, reward, weight, perfect)
        super().__init__(problem, seed, feedback, trials=trials, batch=batch, lr=lr, momentum=momentum)

    def learn(self, index: Ints, gains: Floats, spread: float) -> None:  # noqa: ARG002 - the gains are as they are
        """One step along the mean of `(reward - baseline) * d log p(arch)`."""
        gains = gains / len(gains)
        others = len(index) - len(gains)
        # log p(arch | inside) = log p(arch) - log p(inside), and the latter's gradient is the mean of those in there
        mass = np.full(others, gains.sum() / max(others, 1))
        self.policy.ascend(self.policy.gradient(index, np.concatenate([gains, -mass]), self.policy.probs(index)))

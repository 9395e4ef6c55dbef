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

from collections.abc import Mapping, Sequence

import numpy as np

from sartor.core.contracts import AskTell, Problem
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Proposal, Trial
from sartor.core.rng import numpy_rng
from sartor.policies.baselines import Baseline
from sartor.policies.feedback import Feedback
from sartor.policies.softmax import Policy
from sartor.regions.region import answer, at_least_one
from sartor.rewards import Kind

__all__ = ["Reinforce"]


class Reinforce(AskTell):
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

    saved = ("rng", "trials", "policy", "baseline")
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
        at_least_one(trials=trials, batch=batch)
        if lr <= 0 or not 0 <= momentum < 1:
            raise ConfigError(f"lr is {lr} and momentum is {momentum}; lr must be positive, momentum in [0, 1)")
        self.problem, self.seed, self.total, self.batch = problem, seed, trials, batch
        self.feedback = Feedback(problem, reward, weight, perfect)
        self.within_limits = self.feedback.rejects
        sizes = [len(c.options) for c in problem.space.choices]
        self.rng, self.policy = numpy_rng(seed, "draws"), Policy(sizes, numpy_rng(seed, "logits"), lr=lr)
        self.baseline = Baseline(momentum)
        self.trials: list[Trial] = []
        self._inside = np.zeros((0, len(sizes)), dtype=np.int64)

    def ask(self) -> list[Proposal]:
        """Draws from the policy."""
        count = min(self.batch, self.total - len(self.trials))
        if count < 1:
            return []
        drawn, self._inside = self.feedback.draw(self.policy, self.rng, count)
        return [Proposal(arch) for arch in drawn]

    def tell(self, trials: Sequence[Trial]) -> None:
        """One step along the mean of `(reward - baseline) * d log p(arch)`."""
        self.trials += trials
        good = [t for t in trials if t.ok]
        if not good:
            return
        rewards = [self.feedback(t) for t in good]
        gains = np.array([r - self.baseline.update(r) for r in rewards]) / len(good)
        index, inside = np.array([t.arch for t in good]), self._inside
        # log p(arch | inside) = log p(arch) - log p(inside), and the latter's gradient is the mean of those in there
        mass = np.full(len(inside), gains.sum() / max(len(inside), 1))
        index = np.concatenate([index, inside])
        self.policy.ascend(self.policy.gradient(index, np.concatenate([gains, -mass]), self.policy.probs(index)))

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The best evaluated network under `limits`; if none meets them, a random one that does.

        Raises:
            BudgetError: No network meets them.
        """
        return answer(self.problem, self.trials, limits, numpy_rng(self.seed, "solve"))

"""Searches by policy gradients: networks drawn from a softmax policy, which their rewards move after every batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from sartor.core.contracts import AskTell, Problem
from sartor.core.records import Arch, Proposal, Trial
from sartor.core.rng import numpy_rng
from sartor.policies.baselines import Baseline
from sartor.policies.feedback import Feedback
from sartor.policies.softmax import Floats, Ints, Policy
from sartor.regions.region import answer, at_least_one


class PolicyGradient(AskTell):
    """What REINFORCE and PPO have in common; they differ in how the policy learns.

    Args:
        problem: Any problem.
        seed: Of the initial logits and the draws.
        feedback: Rewards, and draws within the budget.
        trials: How many networks are evaluated.
        batch: How many are proposed at a time.
        lr: Step size of Adam.
        momentum: Of the average that is subtracted from the rewards, in [0, 1).
        autoregressive: Whether a choice may depend on the earlier ones.
    """

    saved = ("rng", "policy", "baseline")

    def __init__(
        self,
        problem: Problem,
        seed: int,
        feedback: Feedback,
        *,
        trials: int,
        batch: int,
        lr: float,
        momentum: float,
        autoregressive: bool = False,
    ) -> None:
        at_least_one(trials=trials, batch=batch)
        self.problem, self.seed, self.total, self.batch = problem, seed, trials, batch
        self.feedback, self.within_limits = feedback, feedback.rejects
        sizes = [len(c.options) for c in problem.space.choices]
        self.rng = numpy_rng(seed, "draws")
        self.policy = Policy(sizes, numpy_rng(seed, "logits"), lr=lr, autoregressive=autoregressive)
        self.baseline = Baseline(momentum)
        self.trials: list[Trial] = []
        self._inside = np.zeros((0, len(sizes)), dtype=np.int64)

    @abstractmethod
    def learn(self, index: Ints, gains: Floats, spread: float) -> None:
        """Move the policy.

        Args:
            index: The `m` networks evaluated that did not fail, then further draws within the budget, of which the
                policy's mass there can be estimated (none where nothing is rejected), `(m + d, n)`.
            gains: Rewards of the former less their average so far, `(m,)`.
            spread: Standard deviation of these rewards.
        """

    def ask(self) -> list[Proposal]:
        """Draws from the policy."""
        count = min(self.batch, self.total - len(self.trials))
        if count < 1:
            return []
        drawn, self._inside = self.feedback.draw(self.policy, self.rng, count)
        return [Proposal(arch) for arch in drawn]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Move the policy; failed networks teach nothing."""
        self.trials += trials
        good = [t for t in trials if t.ok]
        if not good:
            return
        rewards = np.array([self.feedback(t) for t in good])
        gains = rewards - [self.baseline.update(r) for r in rewards.tolist()]
        self.learn(np.concatenate([[t.arch for t in good], self._inside]), gains, float(rewards.std()))

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The best evaluated network under `limits`; if none meets them, a random one that does.

        Raises:
            BudgetError: No network meets them.
        """
        return answer(self.problem, self.trials, limits, numpy_rng(self.seed, "solve"))

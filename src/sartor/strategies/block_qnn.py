"""BlockQNN: tabular Q-learning chooses one option after the other (Zhong et al., CVPR 2018, arXiv:1708.05552).

The choices of any space are an episode: a state is the options before (`memory` of them), an action the next option. An
option is a random one with probability epsilon, else the one worth most. When a batch is evaluated, the values learn
from it and from a sample of all networks so far (replay). Every option of a network is rewarded with an equal part of
the network's reward (shaping), the paper's remedy for networks that end too early. Deviations:

* The paper searches 11,392 networks in batches of 64, the first half at random, with a step of 0.01. The defaults suit
  hundreds. `batch = 64`, `schedule = "published"`, `lr = 0.01` and `scale = "none"` are the paper's.
* With `scale = "rank"` a network's reward is the share of the networks so far that it beats, so that the unit of the
  metric does not matter, and what is best so far stands out; failed networks beat nobody. With `none` it is the metric
  in per cent of a perfect one, and 0 for failed networks.
* `shaping = "length"` divides the reward by the number of options that matter, `maximum` by the number of choices; the
  paper's text was not at hand to tell which it means. Choices after which nothing matters end an episode.
* The paper keeps the rewards of networks that are drawn again; here they are drawn anew until they are new.
* Options that cannot be completed within the limits are not drawn; the paper has no limits.
* `mu` and `rho` take `mu log(MACs) + rho log(density)` off the metric in per cent, as the paper does (1 and 8) for
  short trainings, which underrate dense networks.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from sartor.core.contracts import AskTell, Problem
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Proposal, Trial
from sartor.core.rng import numpy_rng
from sartor.policies.q_table import QTable, shaped
from sartor.regions.openings import Openings
from sartor.regions.region import Region, answer, at_least_one, proposals

__all__ = ["BlockQnn"]

TRIES = 200
"""Draws that may end in networks already tried or outside of the limits, before a random one is taken."""
PUBLISHED = ((1.0, 95), (0.9, 7), (0.8, 7), (0.7, 7), (0.6, 10), (0.5, 10), (0.4, 10), (0.3, 10), (0.2, 10), (0.1, 12))
"""Epsilon, and for how many of the paper's 178 iterations."""
SHORT = ((1.0, 10), (0.5, 10), (0.3, 20), (0.2, 30), (0.1, 30))
"""Ours, for hundreds of networks."""
SCHEDULES = {"published": PUBLISHED, "short": SHORT}


class BlockQnn(AskTell):
    """Q-learning with a falling share of random options.

    Args:
        problem: Any problem; `mu` needs its cost `macs`, `rho` its cost `density`.
        seed: Of all draws.
        trials: How many networks are evaluated; the schedule follows it.
        batch: How many are proposed at a time.
        schedule: Of epsilon over the trials: `published` or `short`.
        lr: Share of the new in an update, in (0, 1].
        discount: Of what comes after the next option, in [0, 1].
        memory: Options before that make a state; a layer of the paper is several choices in some spaces.
        replay: Networks drawn from all so far, from which the values learn after each batch.
        shaping: What the reward is divided by: `length`, `maximum`; or `none`, where the last option gets all.
        scale: Of the reward: `rank` among all so far, or `none`.
        mu: Weight of the logarithm of MACs in the reward.
        rho: Weight of the logarithm of the density.
        perfect: The metric of a perfect network: 1 for accuracies as fractions, 100 for per cent.
    """

    saved = ("rng", "table")
    smoke = {"trials": 17, "batch": 3, "replay": 8}

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        trials: int = 100,
        batch: int = 8,
        schedule: Literal["published", "short"] = "short",
        lr: float = 0.1,
        discount: float = 1.0,
        memory: int = 1,
        replay: int = 128,
        shaping: Literal["length", "maximum", "none"] = "length",
        scale: Literal["rank", "none"] = "rank",
        mu: float = 0.0,
        rho: float = 0.0,
        perfect: float = 1.0,
    ) -> None:
        at_least_one(trials=trials, batch=batch, memory=memory, replay=replay)
        if not 0 < lr <= 1 or not 0 <= discount <= 1 or min(mu, rho) < 0 or perfect <= 0:
            raise ConfigError(
                f"lr is {lr}, discount {discount}, mu {mu}, rho {rho} and perfect {perfect}; lr must be in (0, 1], "
                "discount in [0, 1], mu and rho not negative, perfect positive"
            )
        if schedule not in SCHEDULES or shaping not in {"length", "maximum", "none"} or scale not in {"rank", "none"}:
            raise ConfigError(
                f"schedule is {schedule!r}, shaping {shaping!r} and scale {scale!r}; they are published or short, "
                "length, maximum or none, and rank or none"
            )
        self.problem, self.seed, self.total, self.batch = problem, seed, trials, batch
        self.schedule, self.replay, self.shaping, self.scale, self.perfect = schedule, replay, shaping, scale, perfect
        self.taxes = [(w, problem.cost(m)) for m, w in (("macs", mu), ("density", rho)) if w]
        self.region, self.openings, self.rng = Region(problem), Openings(problem), numpy_rng(seed, "block_qnn")
        self.table = QTable(self.openings.sizes, lr=lr, discount=discount, memory=memory)
        self.trials: list[Trial] = []
        self._told, self._read = self.trials, 0
        self._rewards, self._lengths, self._ranked = dict[Arch, float](), dict[Arch, int](), list[float]()

    def epsilon(self, done: int) -> float:
        """The share of random options after so many trials."""
        steps, end = SCHEDULES[self.schedule], 0
        for value, n in steps:
            end += n
            if done * sum(n for _, n in steps) < end * self.total:
                return value
        return steps[-1][0]

    def ask(self) -> list[Proposal]:
        """Draws by the values, epsilon of the options at random."""
        self._catch_up()
        return proposals(min(self.batch, self.total - len(self.trials)), self._new)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn from the batch, then from a sample of all."""
        self.trials += trials
        self._catch_up()
        drawn = self.rng.integers(len(self.trials), size=self.replay).tolist()
        for arch in [*(t.arch for t in trials), *(self.trials[i].arch for i in drawn)]:
            self._update(arch)

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The best evaluated network under `limits`; if none meets them, a random one that does.

        Raises:
            BudgetError: No network meets them.
        """
        return answer(self.problem, self.trials, limits, numpy_rng(self.seed, "solve"))

    def reward(self, trial: Trial) -> float:
        """The metric in per cent less what MACs and density take off; minus infinity if the trial failed."""
        if not trial.ok:
            return -math.inf
        value = -100 * self.problem.objectives[0].loss(trial) / self.perfect
        return value - sum(w * math.log(float(cost([trial.arch])[0])) for w, cost in self.taxes)

    def _update(self, arch: Arch) -> None:
        reward, length = self._rewards[arch], self._lengths[arch]
        if self.scale == "rank":
            reward = bisect_left(self._ranked, reward) / max(1, len(self._ranked) - 1)
        elif reward == -math.inf:
            reward = 0.0
        if self.shaping == "none":
            self.table.update(arch, [0.0] * (length - 1) + [reward])
        else:
            self.table.update(arch, shaped(reward, length, length if self.shaping == "length" else len(arch)))

    def _new(self, pending: Collection[Arch]) -> Arch | None:
        epsilon = self.epsilon(len(self.trials) + len(pending))
        for _ in range(TRIES):
            arch = self._drawn(epsilon)
            if arch is not None and arch not in self._rewards and arch not in pending:
                return arch
        return self.region.fresh({*self._rewards, *pending}, self.rng, TRIES)

    def _drawn(self, epsilon: float) -> Arch | None:
        """One episode; None if it ends outside of the limits."""
        path: Arch = ()
        draws = self.rng.random((3, len(self.openings.sizes))).tolist()
        for coin, pick, tie in zip(*draws, strict=True):
            options = self.openings(path)
            if not options:
                return None
            if coin >= epsilon:
                values = self.table.values(path)
                top = max(values[o] for o in options)
                options = [o for o in options if values[o] == top]
            path = (*path, options[int((pick if coin < epsilon else tie) * len(options))])
        arch = self.problem.space.canonical(path)
        return arch if arch in self.region else None

    def _catch_up(self) -> None:
        """What follows from the trials."""
        if self._told is not self.trials:
            self._told, self._read = self.trials, 0
            self._rewards, self._lengths, self._ranked = {}, {}, []
        for trial in self.trials[self._read :]:
            self._rewards[trial.arch] = self.reward(trial)
            self._lengths[trial.arch] = self._length(trial.arch)
        if self._read < len(self.trials):
            self._read, self._ranked = len(self.trials), sorted(self._rewards.values())

    def _length(self, arch: Arch) -> int:
        """How many options there are until nothing matters."""
        canonical = self.problem.space.canonical
        for i in reversed(range(1, len(arch))):
            others = (k for k in range(self.openings.sizes[i]) if k != arch[i])
            if any(canonical((*arch[:i], k, *arch[i + 1 :])) != arch for k in others):
                return i + 1
        return 1

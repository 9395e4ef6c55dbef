"""N2N: one recurrent policy removes layers, then another shrinks what is left (Ashok et al., ICLR 2018).

Both are trained by REINFORCE on the reward C (2 - C) times the student's share of the teacher's accuracy. The first, a
bidirectional LSTM, decides on all layers of the teacher independently; the second starts from the best network of the
first stage and decides layer after layer, each given the one before. Deviations:

* A policy reads one row per choice of the space: which one, and its option in the network that it starts from. The
  paper's reads kernel, stride, padding and channels of each layer, and its second policy also the layers' shapes.
* The first stage decides on choices between 0 and 1, as `keep:conv2`; spaces without them have the second stage alone.
  That one takes any option of the other choices, the paper's one of ten ratios. Choices that are `none` in the
  reference would add something, and stay.
* Networks outside of the budget are drawn again and never evaluated; the gradient is that of the restricted policy, as
  in `reinforce`. With a budget the reward is the objective alone (`reward`).
* A space that is a list of networks (`Moves.members`) is drawn from by the policy's probabilities of its networks: each
  stage weighs them by its own choices, whatever the others are.
* Sizes and learning rates of the policies are ours, and so is the number of networks per step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sartor.core.contracts import AskTell, Problem
from sartor.core.errors import BudgetError, ConfigError
from sartor.core.records import Arch, Proposal, Trial
from sartor.core.rng import derive, numpy_rng
from sartor.policies.baselines import Baseline
from sartor.policies.recurrent import Recurrent
from sartor.policies.softmax import Floats, Ints
from sartor.regions.compression import Kind, Worth
from sartor.regions.region import Region, at_least_one
from sartor.strategies.n2n.stages import Policies, stages
from sartor.surrogates.embedding import one_thread, options

__all__ = ["N2n"]

BLOCK, TRIES = 32, 16
"""Draws at a time beyond those needed, and how often before networks are repaired instead."""


class N2n(AskTell):
    """Removal, then shrinkage, by policy gradients.

    Args:
        problem: Any; the reward `compression` needs a cost model of `params`.
        seed: Of the initial weights and the draws.
        trials: How many networks are evaluated, the teacher's own evaluation included.
        batch: How many are proposed at a time, and make one step together.
        removal: Share of the trials in the first stage, in [0, 1]; spaces without removals have the second one only,
            spaces without anything else the first one only.
        hidden: Units of the policies, per direction.
        layers: Of their LSTMs.
        lr: Step size of Adam.
        momentum: Of the average that is subtracted from the rewards, in [0, 1).
        reward: `feasible` is the objective within the budget, `compression` is C (2 - C) times the accuracy as a share
            of the teacher's, C the share of parameters removed; `auto` is the latter if nothing is limited.
        teacher: The accuracy of the teacher; 0 evaluates the space's reference first.
    """

    saved = ("rng", "policies", "baseline")
    smoke = {"trials": 14, "batch": 3, "hidden": 4}

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        trials: int = 160,
        batch: int = 5,
        removal: float = 0.5,
        hidden: int = 30,
        layers: int = 2,
        lr: float = 0.01,
        momentum: float = 0.9,
        reward: Kind = "auto",
        teacher: float = 0.0,
    ) -> None:
        at_least_one(trials=trials, batch=batch, hidden=hidden, layers=layers)
        if lr <= 0 or not 0 <= momentum < 1 or not 0 <= removal <= 1:
            raise ConfigError(
                f"lr is {lr}, momentum is {momentum} and removal is {removal}; lr must be positive, momentum in [0, 1) "
                "and removal in [0, 1]"
            )
        self.problem, self.seed, self.total, self.batch = problem, seed, trials, batch
        self.worth, self.region = Worth(problem, reward, teacher), Region(problem)
        self.within_limits = not self.worth.first
        self.places, self.first = stages(problem, self.worth.reference), round(removal * trials)
        if not all(self.places):
            self.first = trials if self.places[0] else 0
        members = problem.space.moves.members
        self._listed = [arch for arch in members if arch in self.region]
        if members and not self._listed:
            raise BudgetError(
                f"none of the {len(members)} networks that the space lists meets {dict(problem.limits())}; raise them"
            )
        self._rows = options(problem.space.choices)
        self.policies = Policies(
            [
                Recurrent(
                    self._rows[places, 0],
                    [len(problem.space.choices[i].options) for i in places],
                    derive(seed, "policy", stage),
                    hidden=hidden,
                    layers=layers,
                    lr=lr,
                    autoregressive=bool(stage),
                )
                if places
                else None
                for stage, places in enumerate(self.places)
            ]
        )
        self.rng, self.baseline = numpy_rng(seed, "draws"), Baseline(momentum)
        self.trials: list[Trial] = []
        self._best: Arch | None = None
        self._index: Ints = np.zeros((0, 0), dtype=np.int64)

    def ask(self) -> list[Proposal]:
        """The teacher first, if it is not known; then draws from the policy of the stage.

        Raises:
            BudgetError: No network is within the budget.
            DataError: The teacher has no accuracy.
        """
        self.worth.meet(self.trials)
        if self.worth.unknown:
            return [Proposal(self.worth.reference)]
        done = len(self.trials)
        end = self.first if done < self.first else self.total
        count = min(self.batch, end - done)
        if count < 1:
            return []
        return [Proposal(arch) for arch in self._drawn(count)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """One step along the mean of `(reward - baseline) * d log p(arch | budget)`."""
        teacher, stage = self.worth.unknown, self._stage()
        self.trials += trials
        self.worth.meet(self.trials)
        good = [i for i, t in enumerate(trials) if t.ok]
        policy = self.policies.all[stage]
        if teacher or not good or policy is None:
            return
        rewards = [self.worth(trials[i]) for i in good]
        gains = np.array([r - self.baseline.update(r) for r in rewards]) / len(good)
        inside = self._index[len(trials) :]
        mass = np.full(len(inside), gains.sum() / max(len(inside), 1))
        weights: Floats = np.concatenate([gains, -mass])
        policy.ascend(np.concatenate([self._index[good], inside]), weights)

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The network with the largest reward under `limits`; if none fits, a random one.

        Raises:
            BudgetError: No network meets them.
        """
        return self.worth.answer(self.trials, limits, numpy_rng(self.seed, "solve"))

    def _stage(self) -> int:
        return int(len(self.trials) >= self.first)

    def _start(self, stage: int) -> Arch:
        """The network that a stage changes: the teacher, or the best of the first stage, which is over then."""
        if not stage:
            return self.worth.reference
        if self._best is None:
            ranked = self.worth.ranked(self.trials[: self.first])
            self._best = ranked[0].arch if ranked else self.worth.reference
        return self._best

    def _drawn(self, count: int) -> list[Arch]:
        """Networks within the budget; further draws in there are kept to estimate the policy's mass."""
        stage = self._stage()
        start, places, policy = self._start(stage), self.places[stage], self.policies.all[stage]
        if policy is None:
            return []  # the space has one network
        policy.rows = self._rows[places, torch.tensor(start)[places]]
        if self._listed:
            return self._taken(policy, places, count)
        base, found, index, drawn = np.array(start), list[Arch](), list[Ints](), 0
        outside: list[Arch] = []
        extra = BLOCK if self.region.limits else 0
        for _ in range(TRIES):
            for row in policy.draw(self.rng, count + extra):
                full = base.copy()
                full[places] = row
                arch, drawn = self.problem.space.canonical(tuple(full.tolist())), drawn + 1
                if arch in self.region:
                    found.append(arch)
                    index.append(row)
                else:
                    outside.append(arch)
            if len(found) >= count:
                break
        for arch in outside[: max(0, count - len(found))]:
            found.append(self.region.repair(arch, self.rng))
            index.append(np.array(found[-1])[places])
        self._index = np.stack(index if outside else index[:count])
        return found[:count]

    def _taken(self, policy: Recurrent, places: Sequence[int], count: int) -> list[Arch]:
        """Networks of the list, by the policy given that it draws one of them; further ones for the mean gradient."""
        index = np.array(self._listed)[:, places]
        with torch.no_grad(), one_thread():
            p = policy.log_probs(index).double().softmax(0).numpy()
        drawn = self.rng.choice(len(p), size=count + BLOCK, p=p / p.sum())
        self._index = index[drawn]
        return [self._listed[i] for i in drawn[:count].tolist()]

"""TuNAS: a policy gradient on the accuracies of paths with shared weights (Bender et al., CVPR 2020).

In turns, weights are trained on a path drawn from the policy, and the policy on the reward of another on a held-out
batch: `quality + beta |cost / limit - 1|`. Deviations:

* The network meets every limit: it is the most preferred one that does, found exactly. The paper takes the most
  preferred one, whose cost is near the target.
* Paths are drawn tilted to the limit (`tilt`, see `sartor.supernet.penalties`), and a `temperature` keeps preferences
  to scale (see `sartor.supernet.preferences.calm`); `tilt = false` and `temperature = 0` are the paper's.
* Rewards count less what the preferences, at their temperature, say of the path (`surprises`): the same in expectation,
  with less noise; the average reward is one per budget level. With `temperature = 0` rewards are plain.
* `samples` paths per step, each with an equal part of the held-out batch (of four times the training batch, as in the
  paper); the paper draws one. With `together` they run in one pass, where norms see the images of several paths.
* The policy rests in the first quarter of the training, and its steps then rise tenfold, per 256 images, as in the
  paper's code; `arch_schedule = "cosine"` lets them fall instead, which short searches want.
* RMSProp adds its epsilon of 1 to the root of the mean square, as torch does; the paper's code adds it inside.
* Widths (ordered choices) are masked or sliced as the space's supernet does it; no rematerialisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from sartor.core import trees
from sartor.core.contracts import Lab, Problem, Strategy
from sartor.core.errors import ConfigError
from sartor.core.records import Arch
from sartor.core.rng import torch_rng
from sartor.core.trees import Inputs, Tree
from sartor.policies.baselines import Baselines
from sartor.rewards import WEIGHTS, Kind, check_maximised, reward
from sartor.supernet import gates
from sartor.supernet.controller import Controller
from sartor.supernet.heldout import HeldOut, quality
from sartor.supernet.penalties import Penalty
from sartor.supernet.preferences import Preferences, policy_slopes, surprises
from sartor.supernet.weights import Training, cosine, warmed

__all__ = ["Tunas"]

Steps: TypeAlias = Literal["rise", "cosine", "constant"]

MOMENTUM, RISE, LARGER = 0.95, 10.0, 4
"""Of the average reward; of the policy's steps until the end; of held-out batches over training batches."""


class Tunas(Strategy):
    """REINFORCE with shared weights.

    Args:
        problem: A task, a `Shareable` space, and limits whose cost models offer `Terms`.
        seed: Of everything random.
        epochs: Of training; one is one step.
        warmup: Share of the training in which the policy rests and the warm-ups fade.
        warm_options: Whether, while the warm-up fades, all options of a choice run at once now and then.
        warm_widths: Whether, likewise, ordered choices take their last option.
        arch_lr: First step of Adam for the policy, per 256 held-out images.
        arch_schedule: Of that step: it can `rise` tenfold, fall along a `cosine` to a twentieth, or be `constant`.
        samples: Paths per step of the policy.
        together: Whether they run in one pass, with gates per image.
        reward: `absolute`; `mnas_soft` and `mnas_hard` (MnasNet); `feasible` ignores costs.
        weight: Of the cost in the reward; 0 takes the source's.
        tilt: Whether paths are drawn tilted to the limit.
        temperature: How much preferences are held back, relative to a quality of one, per choice; 0 does not.
        lr: Learning rate of RMSProp per 256 images of a batch, along a cosine.
        weight_decay: Of RMSProp, for what ran.
        device: `cpu` or `cuda`.
    """

    saved = ("training", "controller", "penalty", "heldout", "rng", "baselines")
    smoke = {"epochs": 4}
    evaluator = "inherited"
    shares_weights = True

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        epochs: int = 90,
        warmup: float = 0.25,
        warm_options: bool = True,
        warm_widths: bool = True,
        arch_lr: float = 3e-4,
        arch_schedule: Steps = "rise",
        samples: int = 1,
        together: bool = False,
        reward: Kind = "absolute",
        weight: float = 0.0,
        tilt: bool = True,
        temperature: float = 0.1,
        lr: float = 0.165,
        weight_decay: float = 4e-5,
        device: str = "cpu",
    ) -> None:
        if not 0 <= warmup < 1 or samples < 1:
            raise ConfigError(
                f"Tunas has warmup = {warmup} and samples = {samples}; they must be in [0, 1) and at least 1"
            )
        if reward not in WEIGHTS:
            raise ConfigError(f"no reward called {reward!r}; known: {', '.join(WEIGHTS)}")
        if reward.startswith("mnas"):
            check_maximised(reward, problem.objectives[0])
        self.problem, self.warm, self.samples, self.together, self.lr = problem, warmup, samples, together, lr
        self.rises = arch_schedule == "rise"
        self.reward, self.weight = reward, weight or None
        self.warm_options, self.warm_widths = warm_options, warm_widths
        rms = partial(torch.optim.RMSprop, lr=lr, alpha=0.9, momentum=0.9, eps=1.0, weight_decay=weight_decay)
        self.controller = Controller(
            problem,
            Preferences(problem.space.choices),
            by=self,
            lr=arch_lr,
            schedule="constant" if arch_schedule == "rise" else arch_schedule,
            temperature=temperature,
        )
        self.penalty = Penalty(problem, "tilt" if tilt else "none", by=self)
        self.training = Training(problem, seed, by=self, epochs=epochs, optimizer=rms, device=device)
        self.heldout = HeldOut(problem, seed, by=self, device=device)
        self.rng, self.baselines = torch_rng(seed, "paths"), Baselines(MOMENTUM, len(self.controller.levels))

    def step(self, lab: Lab) -> bool:
        """One epoch; at the end, evaluate the solution of every budget level."""
        if self.training.finished:
            self.controller.conclude(lab, self.training)
            return False
        loss, value, score = self.training.train(lab, self._step)
        facts = self.penalty.facts(self.controller.preferences)
        lab.log(epoch=self.training.done, loss=loss, quality=value, reward=score, **facts)
        return True

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The most preferred arch under `limits`, metric -> upper bound.

        Raises:
            BudgetError: No arch meets them.
        """
        return self.controller.solve(limits)

    def _step(self, x: Inputs, y: Tree) -> Tensor:
        """A step of the weights, one of the policy; mean loss, quality and reward, `(3,)`."""
        progress = self.training.progress
        self.training.pace(cosine(progress, self.lr) * warmed(progress, 0.025) * trees.size(x) / 256)
        loss = self.training.loss(x, y, self._gates(progress))
        self.training.descend(loss)
        value, score = self._learn(LARGER * trees.size(x), progress)
        return torch.tensor([float(loss.detach()), value, score], dtype=torch.float64)

    def _gates(self, progress: float) -> list[Tensor]:
        """A path from the policy; in the warm-up, some choices run all options at once, or their last one."""
        preferences = self.controller.preferences
        path = self.training.hard(preferences.draw(self.rng))
        if progress >= self.warm:
            return path
        luck = torch.rand(len(path), generator=self.rng, dtype=torch.float64) >= progress / self.warm
        for i, choice in enumerate(self.problem.space.choices):
            if bool(luck[i]) and choice.ordered and self.warm_widths:
                path[i] = torch.zeros_like(path[i])
                path[i][-1] = 1.0
            elif bool(luck[i]) and not choice.ordered and self.warm_options:
                path[i] = torch.full_like(path[i], 1 / len(path[i]))
        return path

    def _learn(self, count: int, progress: float) -> tuple[float, float]:
        """A step of the policy; mean quality and reward of its paths."""
        preferences = self.controller.preferences
        x, y = self.heldout.batch(count)
        number = min(self.samples, max(1, trees.size(x) // 2))  # batch norm needs two images
        drawn = preferences.draws(number, self.rng)
        outputs = self._outputs(trees.parts(x, number), drawn)
        pairs = zip(outputs, trees.parts(y, number), strict=True)
        qualities = [quality(self.problem, output, labels) for output, labels in pairs]
        rewards = self._rewards(drawn, qualities)
        mean, value = sum(rewards) / number, sum(qualities) / number
        baseline = self.baselines.update(self.penalty.level, mean)
        if progress >= self.warm:
            temperature = self.controller.temperature(1.0, 0.0)  # constant: noisy steps would lag behind a falling one
            slopes = policy_slopes(preferences, drawn, surprises(preferences, drawn, rewards, temperature) - baseline)
            later = (progress - self.warm) / (1 - self.warm)
            rise = RISE**later if self.rises else 1.0
            self.controller.move(slopes, later, rise * trees.size(x) / 256)
            self.penalty.tilt(preferences)
        return value, mean

    @torch.no_grad()
    def _outputs(self, parts: Sequence[Inputs], drawn: Sequence[Arch]) -> Sequence[Tree]:
        """What each path says to its part of the images."""
        if not self.together:
            return [self.training.supernet(x, self.training.hard(a)) for x, a in zip(parts, drawn, strict=True)]
        counts = torch.tensor([trees.size(part) for part in parts])
        each = gates.rows(self.problem.space, drawn)
        table = [g.repeat_interleave(counts, 0).to(self.training.like) for g in each]
        output = self.training.supernet(trees.joined(parts), table)
        ends = counts.cumsum(0).tolist()
        return [trees.rows(output, slice(end - n, end)) for end, n in zip(ends, counts.tolist(), strict=True)]

    def _rewards(self, drawn: Sequence[Arch], qualities: Sequence[float]) -> list[float]:
        """By the limits of the level whose turn it is."""
        limits = self.controller.levels[self.penalty.level]
        costs = [(self.problem.cost(m)(drawn) / upper).tolist() for m, upper in limits.items()]
        ratios = zip(*costs, strict=True) if costs else [()] * len(drawn)
        return [reward(self.reward, q, r, self.weight) for q, r in zip(qualities, ratios, strict=True)]

"""TuNAS: a policy gradient on the accuracies of paths with shared weights (Bender et al., CVPR 2020).

In turns, weights are trained on a path drawn from the policy, and the policy on the reward of another on a held-out
batch: `quality + beta |cost / limit - 1|`. Deviations:

* The network meets every limit: it is the most preferred one that does, found exactly. The paper takes the most
  preferred one, whose cost is near the target.
* Paths are drawn tilted to the limit (`tilt`, see `sartor.supernet.penalties`), and a `temperature` keeps preferences
  to scale (see `sartor.supernet.preferences.calm`); `tilt = false` and `temperature = 0` are the paper's.
* `samples` paths per step, each with an equal part of the held-out batch (of four times the training batch, as in the
  paper); the paper draws one.
* The steps of the policy are per 256 images, as in its code, and are zero in the first quarter of the training.
* RMSProp adds its epsilon of 1 to the root of the mean square, as torch does; the paper's code adds it inside.
* Widths (ordered choices) are masked or sliced as the space's supernet does it; no rematerialisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from sartor.core.contracts import Lab, Problem, Strategy
from sartor.core.errors import ConfigError
from sartor.core.records import Arch
from sartor.core.rng import torch_rng
from sartor.rewards import WEIGHTS, Kind, reward
from sartor.sampling.policies import Baseline
from sartor.supernet.controller import Controller
from sartor.supernet.heldout import HeldOut, quality
from sartor.supernet.penalties import Penalty
from sartor.supernet.preferences import Preferences, calm, policy_slopes
from sartor.supernet.weights import Training, cosine, warmed

__all__ = ["Tunas"]

MOMENTUM, RISE, LARGER = 0.95, 10.0, 4
"""Of the average reward; of the policy's steps until the end; of held-out batches over training batches."""


class Tunas(Strategy):
    """REINFORCE with shared weights.

    Args:
        problem: A task, a `Shareable` space, and limits with `Separable` or `Peaked` cost models.
        seed: Of everything random.
        epochs: Of training; one is one step.
        warmup: Share of the training in which the policy rests and the warm-ups fade.
        warm_options: Whether, while the warm-up fades, all options of a choice run at once now and then.
        warm_widths: Whether, likewise, ordered choices take their last option.
        arch_lr: First step of Adam for the policy, per 256 held-out images; it rises tenfold.
        samples: Paths per step of the policy.
        reward: `absolute`; `mnas_soft` and `mnas_hard` (MnasNet); `feasible` ignores costs.
        weight: Of the cost in the reward; 0 takes the source's.
        tilt: Whether paths are drawn tilted to the limit.
        temperature: How much preferences are held back, relative to a quality of one, per choice; 0 does not.
        lr: Learning rate of RMSProp per 256 images of a batch, along a cosine.
        weight_decay: Of RMSProp, for what ran.
        device: `cpu` or `cuda`.
    """

    saved = ("training", "controller", "penalty", "heldout", "rng", "baseline")
    smoke = {"epochs": 4}
    evaluator = "inherited"

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
        samples: int = 1,
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
        self.problem, self.warm, self.samples, self.lr = problem, warmup, samples, lr
        self.reward, self.weight = reward, weight or None
        self.warm_options, self.warm_widths = warm_options, warm_widths
        rms = partial(torch.optim.RMSprop, lr=lr, alpha=0.9, momentum=0.9, eps=1.0, weight_decay=weight_decay)
        self.controller = Controller(
            problem,
            Preferences(problem.space.choices),
            by=self,
            lr=arch_lr,
            schedule="constant",
            temperature=temperature,
        )
        self.penalty = Penalty(problem, "tilt" if tilt else "none", by=self)
        self.training = Training(problem, seed, by=self, epochs=epochs, optimizer=rms, device=device)
        self.heldout = HeldOut(problem, seed, by=self, device=device)
        self.rng, self.baseline = torch_rng(seed, "paths"), Baseline(MOMENTUM)

    def step(self, lab: Lab) -> bool:
        """One epoch; at the end, evaluate the solution of every budget level."""
        if self.training.finished:
            self.controller.conclude(lab, self.training)
            return False
        loss, value, score = self.training.train(lab, self._step)
        preferences = self.controller.preferences
        costs = {f"expected_{m}": v for m, v in self.penalty.expected(preferences.probs()).items()}
        entropy = float(preferences.entropy().detach())
        lab.log(epoch=self.training.done, loss=loss, quality=value, reward=score, entropy=entropy, **costs)
        return True

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The most preferred arch under `limits`, metric -> upper bound.

        Raises:
            BudgetError: No arch meets them.
        """
        return self.controller.solve(limits)

    def _step(self, x: Tensor, y: Tensor) -> Tensor:
        """A step of the weights, one of the policy; mean loss, quality and reward, `(3,)`."""
        progress = self.training.progress
        self.training.pace(cosine(progress, self.lr) * warmed(progress, 0.025) * len(x) / 256)
        loss = self.training.loss(x, y, self._gates(progress))
        self.training.descend(loss)
        value, score = self._learn(LARGER * len(x), progress)
        return torch.tensor([float(loss.detach()), value, score], dtype=torch.float64)

    def _gates(self, progress: float) -> list[Tensor]:
        """A path from the policy; in the warm-up, some choices run all options at once, or their last one."""
        preferences = self.controller.preferences
        gates = self.training.hard(preferences.draw(self.rng))
        if progress >= self.warm:
            return gates
        luck = torch.rand(len(gates), generator=self.rng, dtype=torch.float64) >= progress / self.warm
        for i, choice in enumerate(self.problem.space.choices):
            if bool(luck[i]) and choice.ordered and self.warm_widths:
                gates[i] = torch.zeros_like(gates[i])
                gates[i][-1] = 1.0
            elif bool(luck[i]) and not choice.ordered and self.warm_options:
                gates[i] = torch.full_like(gates[i], 1 / len(gates[i]))
        return gates

    def _learn(self, count: int, progress: float) -> tuple[float, float]:
        """A step of the policy; mean quality and reward of its paths."""
        preferences = self.controller.preferences
        x, y = self.heldout.batch(count)
        number = min(self.samples, max(1, len(x) // 2))  # batch norm needs two images
        drawn, qualities = [preferences.draw(self.rng) for _ in range(number)], list[float]()
        with torch.no_grad():
            for arch, images, labels in zip(drawn, x.tensor_split(number), y.tensor_split(number), strict=True):
                output = self.training.supernet(images, self.training.hard(arch))
                qualities.append(quality(self.problem, output, labels))
        rewards = [self._reward(a, q) for a, q in zip(drawn, qualities, strict=True)]
        mean, value = sum(rewards) / number, sum(qualities) / number
        baseline = self.baseline.update(mean)
        if progress >= self.warm:
            slopes = policy_slopes(preferences, drawn, [r - baseline for r in rewards])
            held_back = calm(preferences, self.controller.temperature(1.0, progress))
            later = (progress - self.warm) / (1 - self.warm)
            self.controller.move(slopes + held_back, progress, self.controller.lr * RISE**later * len(x) / 256)
            self.penalty.tilt(preferences)
        return value, mean

    def _reward(self, arch: Arch, value: float) -> float:
        limits = self.problem.limits()
        ratios = [float(self.problem.cost(m)([arch])[0]) / upper for m, upper in limits.items()]
        return reward(self.reward, value, ratios, self.weight)

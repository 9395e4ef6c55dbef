"""ProxylessNAS: learn which operation to run by running one at a time (Cai, Zhu and Han, ICLR 2019).

Weights are trained on paths drawn from the preferences; preferences are trained on held-out batches, through binary
gates or with REINFORCE, with expected costs in the loss. Deviations:

* The network meets every limit: it is the most preferred one that does, found exactly. The paper takes the most
  preferred one, and tunes the weight of the latency.
* By default, costs are not in the loss: `penalty = "tilt"` keeps the paths that are drawn at the limit on average (see
  `sartor.supernet.penalties`), and a `temperature` keeps preferences to scale (see `sartor.supernet.preferences.calm`).
  The source's losses are `mul_log` and `add_linear`, with `temperature = 0`.
* The step of the preferences falls along a cosine; `arch_schedule = "constant"` is the source's.
* Held-out batches are random ones of the validation split, without augmentation; the paper splits the training images.
* No label smoothing (the loss is the task's), and no retraining here (that is a job of its own).
* Epochs of warm-up are a share of `epochs`; architecture steps begin right after it, in the source's code one epoch
  later.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from sartor.core import trees
from sartor.core.contracts import Lab, Problem, Strategy
from sartor.core.errors import ConfigError
from sartor.core.records import Arch
from sartor.core.rng import torch_rng
from sartor.core.trees import Inputs, Tree
from sartor.policies.baselines import Baselines
from sartor.rewards import check_maximised, mnas_soft
from sartor.supernet import preferences as prefer
from sartor.supernet.controller import Controller, skips
from sartor.supernet.gates import GLANCE
from sartor.supernet.heldout import HeldOut, quality
from sartor.supernet.penalties import Kind, Penalty
from sartor.supernet.slimmable import Schedule
from sartor.supernet.weights import Training, cosine

__all__ = ["Proxyless"]

Gradient: TypeAlias = Literal["two", "full", "reinforce"]

DRAWS, MOMENTUM, EXPONENT = 10, 0.99, 0.1
"""Of REINFORCE: networks per step, of the average reward, of limit / cost in the reward."""
MULTIPLY = ("mul_log", "add_linear")
"""Penalties that multiply the reward of REINFORCE."""


class Proxyless(Strategy):
    """Binary path gates.

    Args:
        problem: A task, a `Shareable` space, and limits whose cost models offer `Terms`.
        seed: Of everything random.
        epochs: Of training in all; one is one step.
        warmup: Share of the epochs that train weights only, on uniform paths.
        gradient: Of the preferences: `two` (paths per step), `full` (all options, each run without a graph) or
            `reinforce`.
        every: Weight steps per architecture step.
        arch_lr: Step of Adam for the preferences.
        arch_schedule: Of that step: `cosine` or `constant`.
        temperature: How much preferences are held back, relative to the loss per choice; 0 does not.
        penalty: What keeps costs down: `tilt`, or `mul_log` or `add_linear` in the loss, or `none`. With `reinforce`,
            the latter two multiply the reward by `(limit / cost) ** 0.1` instead.
        penalty_weight: Of the costs; 0 takes the source's.
        update_skips: Whether a choice learns when the option that ran is a skip; in the source's code it does not.
        lr: Learning rate of SGD per 256 images of a batch, along a cosine; twice as high in the warm-up.
        weight_decay: Of SGD, for what ran.
        device: `cpu` or `cuda`.
    """

    saved = ("training", "controller", "penalty", "heldout", "rng", "baselines", "steps")
    smoke = {"epochs": 4, "every": 2}
    evaluator = "inherited"
    shares_weights = True

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        epochs: int = 160,
        warmup: float = 0.25,
        gradient: Gradient = "two",
        every: int = 5,
        arch_lr: float = 1e-3,
        arch_schedule: Schedule = "cosine",
        temperature: float = 0.1,
        penalty: Kind = "tilt",
        penalty_weight: float = 0.0,
        update_skips: bool = False,
        lr: float = 0.025,
        weight_decay: float = 4e-5,
        device: str = "cpu",
    ) -> None:
        if gradient not in get_args(Gradient):
            raise ConfigError(f"Proxyless has no gradient {gradient!r}; use one of {', '.join(get_args(Gradient))}")
        if not 0 <= warmup < 1 or every < 1:
            raise ConfigError(
                f"Proxyless has warmup = {warmup} and every = {every}; they must be in [0, 1) and at least 1"
            )
        if gradient == "reinforce" and penalty in MULTIPLY:
            check_maximised(penalty, problem.objectives[0])
        self.problem, self.gradient, self.every, self.lr = problem, gradient, every, lr
        sgd = partial(torch.optim.SGD, lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay)
        start = prefer.Preferences(problem.space.choices, torch_rng(seed, "preferences"))
        self.controller = Controller(
            problem, start, by=self, lr=arch_lr, schedule=arch_schedule, temperature=temperature
        )
        self.penalty = Penalty(problem, penalty, penalty_weight, by=self)
        self.training = Training(problem, seed, by=self, epochs=epochs, optimizer=sgd, device=device)
        self.heldout = HeldOut(problem, seed, by=self, device=device)
        self.warm = min(round(warmup * epochs), epochs - 1) / epochs
        self.rng = torch_rng(seed, "paths")
        self.baselines = Baselines(MOMENTUM, len(self.controller.levels))
        self.steps = 0
        """Weight steps since the warm-up."""
        self._silent = [frozenset[int]()] * len(start.sizes) if update_skips else skips(problem.space)
        self._values: list[float] = []

    def step(self, lab: Lab) -> bool:
        """One epoch; at the end, evaluate the solution of every budget level."""
        if self.training.finished:
            self.controller.conclude(lab, self.training)
            return False
        self._values = []
        (loss,) = self.training.train(lab, self._step)
        values = {"arch_loss": sum(self._values) / len(self._values)} if self._values else {}
        lab.log(epoch=self.training.done, loss=loss, **values, **self.penalty.facts(self.controller.preferences))
        return True

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The likeliest arch under `limits`, metric -> upper bound; preferences suit the loosest budget best.

        Raises:
            BudgetError: No arch meets them.
        """
        return self.controller.solve(limits)

    def _step(self, x: Inputs, y: Tree) -> Tensor:
        """A weight step on one path, now and then an architecture step; the loss, a scalar."""
        progress, preferences = self.training.progress, self.controller.preferences
        warming = progress < self.warm - 1e-9
        if warming:
            lr = cosine(progress / self.warm, 2 * self.lr)
        else:
            lr = cosine((progress - self.warm) / (1 - self.warm), self.lr)
        self.training.pace(lr * trees.size(x) / 256)
        path = preferences.draw_uniform(self.rng) if warming else preferences.draw(self.rng)
        loss = self.training.loss(x, y, self.training.hard(path))
        self.training.descend(loss)
        if not warming:
            self.steps += 1
            if self.steps % self.every == 0:
                learn = {"two": self._two, "full": self._full}.get(self.gradient, self._reinforce)
                self._values.append(learn(trees.size(x)))
                self.penalty.tilt(preferences)
        return loss.detach().double()

    def _full(self, count: int) -> float:
        """A step from one path that runs and all others that are looked at."""
        preferences = self.controller.preferences
        arch = preferences.draw(self.rng)
        value, slopes = self._slopes(count, arch, preferences.there)
        self._move(prefer.straight_through(preferences.probs().detach(), slopes), arch)
        return value

    def _two(self, count: int) -> float:
        """A step from two paths, one of which runs; the rest of the mass stays where it is."""
        preferences = self.controller.preferences
        pairs = preferences.draw_pairs(self.rng)
        arch = tuple(pairs.options[:, 0].tolist())
        seen = torch.zeros_like(preferences.there).scatter(1, pairs.options, True)
        value, slopes = self._slopes(count, arch, seen)
        before = preferences.logits.detach().clone()
        self._move(prefer.pair_slopes(preferences, pairs, slopes), arch)
        prefer.keep_mass(preferences, pairs, before)
        return value

    def _slopes(self, count: int, arch: Arch, seen: Tensor) -> tuple[float, Tensor]:
        """The loss, and how it, with its costs and its temperature, changes with the gates, `(n, k)`.

        Costs and temperature are functions of the probabilities, and a gate is 1 with its probability: they have the
        same slopes by both.

        Args:
            count: Images.
            arch: What runs.
            seen: `(n, k)`, whether an option is looked at.
        """
        x, y = self.heldout.batch(count)
        preferences = self.controller.preferences
        gates = torch.where(seen, GLANCE, 0.0).to(self.training.like)
        gates.scatter_(1, torch.tensor(arch, device=gates.device)[:, None], 1.0).requires_grad_()
        probs = preferences.probs().detach().requires_grad_()
        value = self.training.loss(x, y, preferences.rows(gates))
        total = self.penalty(value, self.penalty.ratios(probs))
        found = torch.autograd.grad(total, (gates, probs), allow_unused=True, materialize_grads=True)
        mean = float(value.detach())
        calm = self.controller.temperature(mean, self.training.progress) * preferences.logits.detach()
        return mean, found[0].to(found[1]) + found[1] + calm

    def _move(self, slopes: Tensor, arch: Arch) -> None:
        """A step of the preferences, but not of choices whose option that ran is a skip."""
        speaking = [[float(a not in silent)] for a, silent in zip(arch, self._silent, strict=True)]
        self.controller.move(slopes * slopes.new_tensor(speaking), self.training.progress)

    @torch.no_grad()
    def _reinforce(self, count: int) -> float:
        """A policy-gradient step from several networks on one batch; their mean loss (as minus the quality)."""
        x, y = self.heldout.batch(count)
        archs = [self.controller.preferences.draw(self.rng) for _ in range(DRAWS)]
        qualities, rewards = [], []
        for arch in archs:
            qualities.append(quality(self.problem, self.training.supernet(x, self.training.hard(arch)), y))
            rewards.append(self._reward(arch, qualities[-1]))
        baseline = self.baselines.update(self.penalty.level, sum(rewards) / DRAWS)
        progress, preferences = self.training.progress, self.controller.preferences
        temperature = self.controller.temperature(baseline, progress)
        gains = prefer.surprises(preferences, archs, rewards, temperature) - baseline
        self.controller.move(prefer.policy_slopes(preferences, archs, gains), progress)
        return -sum(qualities) / DRAWS

    def _reward(self, arch: Arch, value: float) -> float:
        if self.penalty.kind not in MULTIPLY:
            return value
        for metric, upper in self.problem.limits().items():
            ratio = float(self.problem.cost(metric)([arch])[0]) / upper
            value = mnas_soft(value, ratio, -(self.penalty.weight if self.penalty.custom else EXPONENT))
        return value

"""DARTS: relax the choice between operations to a softmax and descend on it (Liu, Simonyan and Yang, ICLR 2019).

All options run, each times its probability. Preferences and weights take turns: a step of Adam on a held-out batch, a
step of SGD on a training batch. Second order looks at held-out losses after a step of the weights (eqs. 7 and 8).
Deviations:

* The network meets every limit: it is the most preferred one that does, found exactly. The paper has no costs.
* Costs by default do not enter the loss: `penalty = "tilt"` keeps the softmax at the limit on average (see
  `sartor.supernet.penalties`), and a `temperature` keeps preferences to scale; `penalty = "none"` and
  `temperature = 0` are the paper's.
* Choices are the space's. The paper's rule for cells, two inputs per node and never `zero`, is for the space to say
  (`Moves.derive`; `cells` does with `keep = 2`), and gives way where its network breaks a limit.
* The virtual step is plain SGD, as in the paper's equations; its code adds momentum and weight decay.
* Batch norms learn scales (the paper's, searching, do not: `affine = False`), since what was trained can be cut out.
* Held-out batches are random ones of the validation split; the paper halves the training images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor

from sartor.core import trees
from sartor.core.contracts import Batch, Lab, Problem, Strategy
from sartor.core.errors import ConfigError
from sartor.core.records import Arch
from sartor.core.rng import torch_rng
from sartor.core.trees import Inputs, Tree
from sartor.supernet.controller import Controller
from sartor.supernet.heldout import HeldOut
from sartor.supernet.mixed import fix_norms
from sartor.supernet.penalties import Kind, Penalty
from sartor.supernet.preferences import Preferences, calm
from sartor.supernet.slimmable import Schedule
from sartor.supernet.weights import Training, cosine

__all__ = ["Darts"]

Order: TypeAlias = Literal[1, 2]

NUDGE = 0.01
"""Length of the step of the finite difference."""


class Darts(Strategy):
    """Differentiable search.

    Args:
        problem: A task, a `Shareable` space, and limits whose cost models offer `Terms`.
        seed: Of everything random.
        epochs: Of training; one is one step.
        order: 1, or 2 with the finite-difference Hessian-vector product.
        arch_lr: Step of Adam for the preferences.
        arch_schedule: Of that step: `cosine` or `constant` (the paper's).
        arch_weight_decay: Of the preferences.
        temperature: How much preferences are held back, relative to the loss per choice; 0 does not.
        penalty: What keeps costs down: `tilt`, or `mul_log` or `add_linear` in the loss, or `none`.
        penalty_weight: Of the costs in the loss; 0 takes the source's.
        lr: First learning rate of SGD per 64 images of a batch, falling to `last_lr` along a cosine, epoch by epoch.
        last_lr: Last one.
        weight_decay: Of SGD.
        clip: Largest norm of the gradient of the weights.
        affine: Whether batch norms of operations learn scales and shifts; the paper's do not while it searches.
        device: `cpu` or `cuda`.
    """

    saved = ("training", "controller", "penalty", "heldout")
    smoke = {"epochs": 3}
    evaluator = "inherited"
    shares_weights = True

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        epochs: int = 50,
        order: Order = 1,
        arch_lr: float = 3e-4,
        arch_schedule: Schedule = "cosine",
        arch_weight_decay: float = 1e-3,
        temperature: float = 0.1,
        penalty: Kind = "tilt",
        penalty_weight: float = 0.0,
        lr: float = 0.025,
        last_lr: float = 0.001,
        weight_decay: float = 3e-4,
        clip: float = 5.0,
        affine: bool = True,
        device: str = "cpu",
    ) -> None:
        if order not in (1, 2):
            raise ConfigError(f"order must be 1 or 2, got {order}")
        self.order, self.lr, self.last_lr, self.clip = order, lr, last_lr, clip
        sgd = partial(torch.optim.SGD, lr=lr, momentum=0.9, weight_decay=weight_decay)
        self.controller = Controller(
            problem,
            Preferences(problem.space.choices, torch_rng(seed, "preferences")),
            by=self,
            lr=arch_lr,
            schedule=arch_schedule,
            temperature=temperature,
            betas=(0.5, 0.999),
            weight_decay=arch_weight_decay,
        )
        self.penalty = Penalty(problem, penalty, penalty_weight, by=self)
        prepare = None if affine else fix_norms
        self.training = Training(problem, seed, by=self, epochs=epochs, optimizer=sgd, device=device, prepare=prepare)
        self.heldout = HeldOut(problem, seed, by=self, device=device)

    def step(self, lab: Lab) -> bool:
        """One epoch; at the end, evaluate the solution of every budget level."""
        if self.training.finished:
            self.controller.conclude(lab, self.training)
            return False
        rate = cosine(self.training.done / self.training.epochs, self.lr, self.last_lr)

        def both(x: Inputs, y: Tree) -> Tensor:
            self.training.pace(rate * trees.size(x) / 64)
            arch_loss = self._learn((x, y), self.heldout.batch(trees.size(x)), rate * trees.size(x) / 64)
            loss = self.training.loss(x, y, self._gates())
            self.training.descend(loss, self.clip)
            return torch.stack([loss.detach().cpu().double(), arch_loss])

        loss, arch_loss = self.training.train(lab, both)
        facts = self.penalty.facts(self.controller.preferences)
        lab.log(epoch=self.training.done, loss=loss, arch_loss=arch_loss, **facts)
        return True

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The most preferred arch under `limits`, metric -> upper bound.

        Raises:
            BudgetError: No arch meets them.
        """
        return self.controller.solve(limits)

    def _gates(self) -> list[Tensor]:
        """The softmax, without a graph."""
        preferences = self.controller.preferences
        return preferences.rows(preferences.probs().detach().to(self.training.like))

    def _learn(self, train: Batch, valid: Batch, rate: float) -> Tensor:
        """A step of the preferences; the held-out loss, a scalar."""
        preferences = self.controller.preferences
        value, slopes = self.slopes(train, valid, rate) if self.order == 2 else self._first(valid)
        mean, progress = float(value), self.training.progress
        held_back = calm(preferences, self.controller.temperature(mean, progress))
        self.controller.move(slopes + held_back, progress)
        self.penalty.tilt(preferences)
        return value.cpu().double()

    def _first(self, valid: Batch) -> tuple[Tensor, Tensor]:
        """The held-out loss, and its gradient (with its costs) by the logits, `(n, k)`."""
        value, total = self._valued(valid)
        (slopes,) = torch.autograd.grad(total, [self.controller.preferences.logits])
        return value, slopes

    def slopes(self, train: Batch, valid: Batch, rate: float) -> tuple[Tensor, Tensor]:
        """The held-out loss after a virtual step of the weights, and its gradient by the logits through that step.

        `dL_valid(w', alpha)/dalpha - rate * d2L_train(w, alpha)/dalpha dw * dL_valid(w', alpha)/dw'` with
        `w' = w - rate * dL_train(w, alpha)/dw`; the product is a central difference (eq. 8).

        Args:
            train: Of the virtual step.
            valid: Of the loss.
            rate: Of the virtual step.
        """
        weights, logits = self.training.parameters, self.controller.preferences.logits
        start = [w.detach().clone() for w in weights]
        down = _gradients(self._trained(train), weights)
        _put(weights, start, down, -rate)
        value, total = self._valued(valid)
        found = torch.autograd.grad(total, [logits, *weights], allow_unused=True, materialize_grads=True)
        direct, ahead = found[0], found[1:]
        norm = float(torch.stack([g.double().square().sum() for g in ahead]).sum().sqrt())
        product = torch.zeros_like(direct)
        if norm > 0:
            for sign in (1, -1):
                _put(weights, start, ahead, sign * NUDGE / norm)
                (slope,) = torch.autograd.grad(self._trained(train), [logits])
                product += sign * slope * (norm / (2 * NUDGE))
        _put(weights, start, ahead, 0.0)
        return value, direct - rate * product

    def _trained(self, batch: Batch) -> Tensor:
        """The training loss, with a graph to the logits."""
        preferences = self.controller.preferences
        return self.training.loss(*batch, preferences.rows(preferences.probs().to(self.training.like)))

    def _valued(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss, and the loss with its costs, with a graph to the logits."""
        value = self._trained(batch)
        return value.detach(), self.penalty(value, self.penalty.ratios(self.controller.preferences.probs()))


def _gradients(loss: Tensor, weights: Sequence[Tensor]) -> Sequence[Tensor]:
    return cast(Sequence[Tensor], torch.autograd.grad(loss, list(weights), allow_unused=True, materialize_grads=True))


@torch.no_grad()
def _put(weights: Sequence[Tensor], start: Sequence[Tensor], along: Sequence[Tensor], step: float) -> None:
    """Set the weights to `start + step * along`."""
    for weight, old, direction in zip(weights, start, along, strict=True):
        weight.copy_(torch.add(old, direction, alpha=step))

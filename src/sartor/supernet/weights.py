"""Training of a supernet's weights: its start, its data, one epoch at a time, what is kept of it.

The pace (learning rate, warm-up, clipping) and what a step does with a batch are the strategy's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Sized
from typing import Any

import torch
from torch import Tensor, nn

from sartor.core import trees, weights
from sartor.core.abilities import Shareable, require
from sartor.core.contracts import Lab, Problem
from sartor.core.errors import CapabilityError, ConfigError, DivergedError
from sartor.core.rng import derive, global_seed, torch_rng
from sartor.core.state import pack, unpack
from sartor.core.trees import Inputs, Tree


def cosine(progress: float, first: float, last: float = 0.0) -> float:
    """From `first` at progress 0 to `last` at 1, along half a cosine."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def warmed(progress: float, share: float) -> float:
    """What a learning rate is multiplied by that rises linearly from 0 to 1 over the first `share` of the training."""
    return min(1.0, progress / share) if share > 0 else 1.0


def decay_active(parameters: Sequence[nn.Parameter], weight_decay: float) -> None:
    """Add the gradient of L2 regularisation to the entries that have a gradient, and to no others.

    An entry without a gradient, or with one of exactly zero, did not run: decayed in every step but trained in a few,
    the weights of rare options would vanish (Bender et al., ICML 2018).
    """
    for parameter in parameters:
        if parameter.grad is not None:
            active = parameter.grad != 0
            parameter.grad.addcmul_(parameter.detach(), active.to(parameter), value=weight_decay)


class Training:
    """A supernet in training; all of its state is in `state_dict`.

    Args:
        problem: With a task, and a space that offers `Shareable`.
        seed: Of the initialisation and the data.
        by: Who needs it, for messages.
        epochs: Length of the training.
        optimizer: Makes the optimiser of the weights.
        device: `cpu` or `cuda`.
        prepare: What to do with the supernet before; what needs no gradient afterwards is not trained.

    Raises:
        CapabilityError: The problem has no task, or its space no supernet.
        ConfigError: There is no epoch to train.
    """

    saved: tuple[str, ...] = ("supernet", "optimizer", "data_rng", "done", "batches")

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        by: object,
        epochs: int,
        optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        device: str = "cpu",
        prepare: Callable[[nn.Module], None] | None = None,
    ) -> None:
        self._who = type(by).__name__
        if problem.task is None:
            raise CapabilityError(f"{self._who} trains a supernet and needs a task")
        if epochs < 1:
            raise ConfigError(f"{self._who} has epochs = {epochs}; it must be at least 1")
        self.task, self.choices, self.epochs, self.device = problem.task, problem.space.choices, epochs, device
        with global_seed(derive(seed, "init")):
            self.supernet = require(problem.space, Shareable, by).supernet().to(device)
        if prepare is not None:
            prepare(self.supernet)
        self.parameters = [p for p in self.supernet.parameters() if p.requires_grad]
        self.optimizer = optimizer(self.parameters)
        like = next(iter(self.parameters), torch.zeros(0))
        self.like = like.detach().new_zeros(0)
        """Of the type and on the device that gates should have."""
        self._hard = [torch.eye(len(c.options), dtype=like.dtype, device=like.device) for c in self.choices]
        self.data_rng = torch_rng(seed, "data")
        self.done = 0
        """Epochs trained."""
        self.batches = 0
        """Batches of an epoch; 0 until it is known."""
        self.position = 0
        """Batches of the epoch under way that are done."""
        self._expected = 0

    @property
    def finished(self) -> bool:
        """Whether all epochs are trained."""
        return self.done >= self.epochs

    @property
    def progress(self) -> float:
        """The fraction of the training that is done; the first epoch counts in one piece if its length is unknown."""
        return (self.done + min(1.0, self.position / (self._expected or math.inf))) / self.epochs

    def pace(self, rate: float) -> None:
        """Set the learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def hard(self, arch: Sequence[int]) -> list[Tensor]:
        """One-hot gates `(k_i,)` that run `arch`."""
        return [eye[a] for eye, a in zip(self._hard, arch, strict=True)]

    def loss(self, x: Inputs, y: Tree, gates: Sequence[Tensor]) -> Tensor:
        """The mean loss of a batch, a scalar."""
        return self.task.loss(self.supernet(x, gates), y).mean()

    def descend(self, loss: Tensor, clip: float = 0.0) -> None:
        """One step of the optimiser; what did not run has no gradient, and neither moves nor decays."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if clip:
            nn.utils.clip_grad_norm_(self.parameters, clip)
        self.optimizer.step()

    def train(self, lab: Lab, step: Callable[[Inputs, Tree], Tensor]) -> list[float]:
        """Train one epoch.

        Args:
            lab: For the progress.
            step: What to do with a batch `(x, y)`: returns mean losses, `(m,)`.

        Returns:
            The means of what `step` returned, over all images.

        Raises:
            DivergedError: A loss is not finite.
        """
        self.supernet.train()
        totals, images = torch.zeros((), dtype=torch.float64), 0
        batches = self.task.train(self.data_rng)
        self._expected = len(batches) if isinstance(batches, Sized) else self.batches
        for index, (x, y) in enumerate(batches):
            self.position = index
            count = trees.size(x)
            totals = totals + step(trees.to(x, self.device), trees.to(y, self.device)).detach().cpu() * count
            images += count
            if not totals.isfinite().all():
                lr = self.optimizer.param_groups[0]["lr"]
                raise DivergedError(
                    f"the supernet's loss is {float(totals.sum())} in epoch {self.done + 1}; lower lr (now {lr:g})"
                )
            lab.progress(
                self.done + min(1.0, (index + 1) / (self._expected or math.inf)), self.epochs, "supernet epochs"
            )
        self.done, self.batches, self.position = self.done + 1, self.position + 1 if images else 0, 0
        means: list[float] = (totals / max(1, images)).reshape(-1).tolist()
        return means

    def save_weights(self, lab: Lab) -> None:
        """Write `supernet.safetensors`, the supernet's state dict."""
        weights.save(lab.artifact("supernet.safetensors"), self.supernet.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """All that training goes on from."""
        return pack(self, self.saved)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` took."""
        unpack(self, self.saved, state)

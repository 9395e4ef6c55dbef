"""Training of slimmable supernets, and what single widths cost in loss.

Sandwich rule and in-place distillation: Yu and Huang, "Universally Slimmable Networks" (ICCV 2019). A random path per
image and the statistics of single choices: Berman et al., "AOWS" (CVPR 2020), section 3. Deviations:

* The paper keeps the last 100,000 values of every option and takes their mean. Here the sums that a mean and an
  additive regression need are kept, and forgotten with a half-life: a few kilobytes, exact to resume.
* The default estimate is that regression (`least_squares`). The mean of an option also carries the luck of the other
  layers' random widths and, when AOWS narrows the sampling, their drift; the regression takes both out.
* Neighbouring widths are tied by a weak penalty on second differences, so an option that was never sampled gets what
  its neighbours say.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence, Sized
from typing import Any, Literal, TypeAlias, get_args

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from sartor import archs
from sartor.core.contracts import Lab, Problem, Shareable, require
from sartor.core.errors import CapabilityError, ConfigError, DivergedError, StateError
from sartor.core.records import Choice
from sartor.core.rng import derive, global_seed, torch_rng
from sartor.core.state import atomically, pack, unpack
from sartor.core.tables import Tables

Estimator: TypeAlias = Literal["least_squares", "mean"]
Schedule: TypeAlias = Literal["cosine", "constant"]
Probabilities: TypeAlias = Sequence[Tensor]
"""One float64 tensor per choice, `(levels, k_i)`: how likely each option is, for every budget level."""

RIDGE = 1e-6
"""In images: fixes the constants that one-hot regressors leave open, without moving anything else."""


class Statistics:
    """Sufficient statistics of `d ~ sum_i effect_i(path_i)` over images, with forgetting.

    Args:
        choices: The choices of the space.
        half_life: Epochs after which an image counts half.
        smoothness: Weight, in images, of the squared second differences along each ordered choice.
    """

    saved = ("gram", "moment")

    def __init__(self, choices: Sequence[Choice], *, half_life: float, smoothness: float) -> None:
        if half_life <= 0:
            raise ConfigError(f"half_life is {half_life}; it must be a positive number of epochs")
        self.sizes = [len(c.options) for c in choices]
        self.half_life = half_life
        self.gram = torch.zeros(sum(self.sizes), sum(self.sizes), dtype=torch.float64)
        self.moment = torch.zeros(sum(self.sizes), dtype=torch.float64)
        self._prior = torch.block_diag(*(_roughness(c, smoothness) for c in choices))  # type: ignore[no-untyped-call]
        self._prior += RIDGE * torch.eye(len(self._prior), dtype=torch.float64)

    def forget(self) -> None:
        """Let one epoch pass."""
        factor = 0.5 ** (1 / self.half_life)
        self.gram *= factor
        self.moment *= factor

    def add(self, paths: Tensor, differences: Tensor) -> None:
        """Take in a batch: options `(batch, n)`, long, and loss differences to the widest network, `(batch,)`."""
        hot = torch.cat([one_hot(p, k) for p, k in zip(paths.T, self.sizes, strict=True)], 1).double()
        self.gram += hot.T @ hot
        self.moment += hot.T @ differences.double()

    def mass(self) -> list[Tensor]:
        """How many images (after forgetting) each option was seen with, `(k_i,)` each."""
        return list(torch.split(self.gram.diagonal(), self.sizes))

    def tables(self, estimator: Estimator) -> Tables:
        """Loss that each option adds, divided by the number of choices (AOWS, eq. 3); lower is better.

        Raises:
            StateError: Nothing was added yet.
        """
        if not self.gram.any():
            raise StateError("no statistics yet: train at least one epoch before solving")
        normal = self.gram if estimator == "least_squares" else torch.diag(self.gram.diagonal())
        effects = torch.linalg.solve(normal + self._prior, self.moment)
        return Tables(torch.split(effects / len(self.sizes), self.sizes))

    def state_dict(self) -> dict[str, Any]:
        """The sums."""
        return pack(self, self.saved)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` took."""
        unpack(self, self.saved, state)


def _roughness(choice: Choice, smoothness: float) -> Tensor:
    """Quadratic form `(k, k)`: squared second differences if ordered, else squared distance from the mean."""
    k = len(choice.options)
    eye = torch.eye(k, dtype=torch.float64)
    if not choice.ordered:
        return smoothness * (eye - 1 / k)
    if k < 3:
        return torch.zeros(k, k, dtype=torch.float64)
    second = eye[2:] - 2 * eye[1:-1] + eye[:-2]
    return smoothness * second.T @ second


def uniform(choices: Sequence[Choice]) -> list[Tensor]:
    """Every option equally likely, one level."""
    return [torch.full((1, len(c.options)), 1 / len(c.options), dtype=torch.float64) for c in choices]


def draw(probabilities: Probabilities, count: int, generator: torch.Generator) -> Tensor:
    """Paths `(count, n)`, long: for each a level at random, then every option independently from that level's row."""
    levels = torch.randint(len(probabilities[0]), (count,), generator=generator)
    luck = torch.rand(count, len(probabilities), generator=generator, dtype=torch.float64)
    columns = []
    for i, table in enumerate(probabilities):
        edges = table.cumsum(1)[levels]
        # the last edge may be a rounding below one: scale the luck by it, so that zero-probability tails stay unseen
        picked = (luck[:, i : i + 1] * edges[:, -1:] >= edges).sum(1)
        columns.append(picked.clamp(max=table.shape[1] - 1))
    return torch.stack(columns, 1)


class Slimmable:
    """A slimmable supernet in training; all of its state is in `state_dict`.

    Args:
        problem: With a task, and a space that offers `Shareable`.
        seed: Of the initialisation, the data and the paths.
        by: Who needs it, for messages.
        epochs: Length of the schedule.
        lr: Learning rate per 256 images of a batch.
        schedule: `cosine` to zero (per epoch), or `constant` as in the paper's code.
        momentum: Of SGD.
        weight_decay: Of SGD.
        half_life: Fraction of the training after which an image counts half in the statistics.
        smoothness: Of neighbouring options in the statistics, in images.
        device: `cpu` or `cuda`.
    """

    saved = ("supernet", "optimizer", "paths_rng", "data_rng", "statistics", "done", "batches")

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        by: object,
        epochs: int,
        lr: float,
        schedule: Schedule,
        half_life: float,
        smoothness: float,
        momentum: float = 0.9,
        weight_decay: float = 1e-5,
        device: str = "cpu",
    ) -> None:
        who = type(by).__name__
        if problem.task is None:
            raise CapabilityError(f"{who} trains a supernet and needs a task")
        if schedule not in get_args(Schedule):
            raise ConfigError(f"{who} has no schedule {schedule!r}; use one of {', '.join(get_args(Schedule))}")
        if epochs < 1:
            raise ConfigError(f"epochs of {who} is {epochs}; it needs at least 1")
        self.task, self.choices = problem.task, problem.space.choices
        self.epochs, self.lr, self.schedule, self.device = epochs, lr, schedule, device
        with global_seed(derive(seed, "init")):
            self.supernet = require(problem.space, Shareable, by).supernet().to(device)
        self.optimizer = torch.optim.SGD(
            self.supernet.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay
        )
        self.paths_rng, self.data_rng = torch_rng(seed, "paths"), torch_rng(seed, "data")
        self.statistics = Statistics(self.choices, half_life=half_life * epochs, smoothness=smoothness)
        self.done = 0
        """Epochs trained."""
        self.batches = 0
        """Batches of an epoch; 0 until it is known."""
        self._widest = self._gates(archs.largest(problem.space))
        self._narrowest = self._gates(archs.smallest(problem.space))

    @property
    def finished(self) -> bool:
        """Whether all epochs are trained."""
        return self.done >= self.epochs

    def epoch(self, lab: Lab, probabilities: Callable[[int], Probabilities]) -> None:
        """Train one epoch.

        Args:
            lab: For the log and the progress.
            probabilities: Called before every step, with its index in the epoch: what paths are drawn from.

        Raises:
            DivergedError: A loss is not finite.
        """
        self.supernet.train()
        self.statistics.forget()
        totals, images = torch.zeros(3, dtype=torch.float64), 0
        batches = self.task.train(self.data_rng)
        expected = len(batches) if isinstance(batches, Sized) else self.batches
        index = 0
        for index, (x, y) in enumerate(batches, start=1):
            paths = draw(probabilities(index - 1), len(x), self.paths_rng)
            totals += self._step(x.to(self.device), y.to(self.device), paths) * len(x)
            images += len(x)
            if not totals.isfinite().all():
                raise DivergedError(
                    f"the supernet's loss is {float(totals.sum())} in epoch {self.done + 1}; lower lr (now {self.lr})"
                )
            lab.progress(self.done + min(1.0, index / (expected or math.inf)), self.epochs, "supernet epochs")
        self.done, self.batches = self.done + 1, index
        widest, narrowest, random = (totals / max(1, images)).tolist()
        lab.log(epoch=self.done, loss=widest, loss_narrowest=narrowest, loss_random=random)

    def save(self, lab: Lab, estimator: Estimator) -> None:
        """Write `supernet.safetensors` (the state dict) and `statistics.json` (tables and sample counts)."""
        weights = {k: v.detach().cpu().contiguous() for k, v in self.supernet.state_dict().items()}
        atomically(lab.artifact("supernet.safetensors"), lambda part: save_file(weights, part))
        text = json.dumps(
            {
                "estimator": estimator,
                "choices": [c.name for c in self.choices],
                "loss": [u.tolist() for u in self.statistics.tables(estimator).unary],
                "images": [m.tolist() for m in self.statistics.mass()],
            }
        )
        atomically(lab.artifact("statistics.json"), lambda part: part.write_text(text))

    def state_dict(self) -> dict[str, Any]:
        """All that training goes on from."""
        return pack(self, self.saved)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` took."""
        unpack(self, self.saved, state)

    def _step(self, x: Tensor, y: Tensor, paths: Tensor) -> Tensor:
        """One optimiser step; the mean losses of widest, narrowest and random, `(3,)`."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate() * len(x) / 256
        self.optimizer.zero_grad(set_to_none=True)
        wide = self.supernet(x, self._widest)
        widest = self.task.loss(wide, y)
        widest.mean().backward()  # type: ignore[no-untyped-call]
        teacher = wide.detach().softmax(1)
        narrow = self.supernet(x, self._narrowest)
        cross_entropy(narrow, teacher).backward()  # type: ignore[no-untyped-call]
        gates = [one_hot(p, len(c.options)).to(x) for p, c in zip(paths.T, self.choices, strict=True)]
        random = self.supernet(x, gates)
        cross_entropy(random, teacher).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        with torch.no_grad():
            losses = torch.stack([widest, self.task.loss(narrow, y), self.task.loss(random, y)]).double().cpu()
        self.statistics.add(paths, losses[2] - losses[0])
        return losses.mean(1)

    def _rate(self) -> float:
        decay = 0.5 * (1 + math.cos(math.pi * self.done / self.epochs)) if self.schedule == "cosine" else 1.0
        return self.lr * decay

    def _gates(self, arch: Sequence[int]) -> list[Tensor]:
        return [torch.eye(len(c.options), device=self.device)[a] for c, a in zip(self.choices, arch, strict=True)]

"""Training of slimmable supernets.

Sandwich rule and in-place distillation: Yu and Huang, "Universally Slimmable Networks" (ICCV 2019). Random paths and
the statistics of single choices: Berman et al., "AOWS" (CVPR 2020), section 3. Deviations:

* A batch is cut into `paths` equal parts with a random path each; the paper gives every image its own (`paths = 0`).
  Parts run sliced, at the cost of their width, instead of masked at the widest; and the batch statistics that a path
  sees are its own, as they will be when it is cut out. There are fewer paths, each with less noise.
* The paper keeps the last 100,000 values of every option. Here sums are kept and forgotten with a half-life: a few
  kilobytes, exact to resume; see `sartor.supernet.statistics`.
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
from sartor.core.errors import CapabilityError, ConfigError, DivergedError
from sartor.core.records import Choice
from sartor.core.rng import derive, global_seed, torch_rng
from sartor.core.state import atomically, pack, unpack
from sartor.supernet.statistics import Estimator, Statistics

Schedule: TypeAlias = Literal["cosine", "constant"]
Probabilities: TypeAlias = Sequence[Tensor]
"""One float64 tensor per choice, `(levels, k_i)`: how likely each option is, for every budget level."""


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
        paths: Random paths per batch, each for an equal part of the images; 0 gives every image its own.
        momentum: Of SGD.
        weight_decay: Of SGD.
        half_life: Fraction of the training after which an image counts half in the statistics.
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
        paths: int = 4,
        momentum: float = 0.9,
        weight_decay: float = 1e-5,
        device: str = "cpu",
    ) -> None:
        who = type(by).__name__
        if problem.task is None:
            raise CapabilityError(f"{who} trains a supernet and needs a task")
        if schedule not in get_args(Schedule):
            raise ConfigError(f"{who} has no schedule {schedule!r}; use one of {', '.join(get_args(Schedule))}")
        if epochs < 1 or paths < 0:
            raise ConfigError(f"{who} has epochs = {epochs} and paths = {paths}; they must be at least 1 and 0")
        self.task, self.choices = problem.task, problem.space.choices
        self.epochs, self.lr, self.schedule, self.paths, self.device = epochs, lr, schedule, paths, device
        with global_seed(derive(seed, "init")):
            self.supernet = require(problem.space, Shareable, by).supernet().to(device)
        self.optimizer = torch.optim.SGD(
            self.supernet.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay
        )
        self.paths_rng, self.data_rng = torch_rng(seed, "paths"), torch_rng(seed, "data")
        self.statistics = Statistics(self.choices, half_life=half_life * epochs)
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
            totals += self._step(x.to(self.device), y.to(self.device), probabilities(index - 1)) * len(x)
            images += len(x)
            if not totals.isfinite().all():
                raise DivergedError(
                    f"the supernet's loss is {float(totals.sum())} in epoch {self.done + 1}; lower lr (now {self.lr})"
                )
            lab.progress(self.done + min(1.0, index / (expected or math.inf)), self.epochs, "supernet epochs")
        self.statistics.tune()
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

    def _step(self, x: Tensor, y: Tensor, probabilities: Probabilities) -> Tensor:
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
        paths, random = self._random(x, teacher, probabilities)
        self.optimizer.step()
        with torch.no_grad():
            losses = torch.stack([widest, self.task.loss(narrow, y), self.task.loss(random, y)]).double().cpu()
        self.statistics.add(paths, losses[2] - losses[0])
        return losses.mean(1)

    def _random(self, x: Tensor, teacher: Tensor, probabilities: Probabilities) -> tuple[Tensor, Tensor]:
        """Distil into random paths; the paths, `(batch, n)`, and the logits, `(batch, classes)`."""
        if not self.paths:
            paths = draw(probabilities, len(x), self.paths_rng)
            gates = [one_hot(p, len(c.options)).to(x) for p, c in zip(paths.T, self.choices, strict=True)]
            logits = self.supernet(x, gates)
            cross_entropy(logits, teacher).backward()  # type: ignore[no-untyped-call]
            return paths, logits.detach()
        count = min(self.paths, max(1, len(x) // 2))  # batch norm needs two images
        drawn, outputs = draw(probabilities, count, self.paths_rng), list[Tensor]()
        for path, images, soft in zip(drawn, x.tensor_split(count), teacher.tensor_split(count), strict=True):
            logits = self.supernet(images, self._gates(path.tolist()))
            (cross_entropy(logits, soft) * (len(images) / len(x))).backward()  # type: ignore[no-untyped-call]
            outputs.append(logits.detach())
        paths = torch.cat([p.expand(len(o), -1) for p, o in zip(drawn, outputs, strict=True)])
        return paths, torch.cat(outputs)

    def _rate(self) -> float:
        decay = 0.5 * (1 + math.cos(math.pi * self.done / self.epochs)) if self.schedule == "cosine" else 1.0
        return self.lr * decay

    def _gates(self, arch: Sequence[int]) -> list[Tensor]:
        return [torch.eye(len(c.options), device=self.device)[a] for c, a in zip(self.choices, arch, strict=True)]

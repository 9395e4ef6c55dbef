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
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from sartor import archs
from sartor.core import trees
from sartor.core.contracts import Lab, Problem
from sartor.core.errors import ConfigError
from sartor.core.files import atomically
from sartor.core.records import Choice
from sartor.core.rng import torch_rng
from sartor.core.trees import Inputs, Tree
from sartor.supernet.paths import pick
from sartor.supernet.statistics import Estimator, Statistics
from sartor.supernet.weights import Training, cosine

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
    return torch.stack([pick(table[levels], luck[:, i : i + 1]) for i, table in enumerate(probabilities)], 1)


class Slimmable(Training):
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

    saved = (*Training.saved, "paths_rng", "statistics")

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
        if schedule not in get_args(Schedule):
            raise ConfigError(f"{who} has no schedule {schedule!r}; use one of {', '.join(get_args(Schedule))}")
        if paths < 0:
            raise ConfigError(f"{who} has paths = {paths}; it must be at least 0")
        sgd = partial(torch.optim.SGD, lr=lr, momentum=momentum, weight_decay=weight_decay)
        super().__init__(problem, seed, by=by, epochs=epochs, optimizer=sgd, device=device)
        self.lr, self.schedule, self.paths = lr, schedule, paths
        self.paths_rng = torch_rng(seed, "paths")
        self.statistics = Statistics(self.choices, half_life=half_life * epochs)
        self._widest = self.hard(archs.largest(problem.space))
        self._narrowest = self.hard(archs.smallest(problem.space))

    def epoch(self, lab: Lab, probabilities: Callable[[int], Probabilities]) -> None:
        """Train one epoch.

        Args:
            lab: For the log and the progress.
            probabilities: Called before every step, with its index in the epoch: what paths are drawn from.

        Raises:
            DivergedError: A loss is not finite.
        """
        self.statistics.forget()
        means = self.train(lab, lambda x, y: self._step(x, y, probabilities(self.position)))
        self.statistics.tune()
        names = ("loss", "loss_narrowest", "loss_random")
        lab.log(epoch=self.done, **dict(zip(names, means, strict=True)))

    def save(self, lab: Lab, estimator: Estimator) -> None:
        """Write `supernet.safetensors` (the state dict) and `statistics.json` (tables and sample counts)."""
        self.save_weights(lab)
        text = json.dumps(
            {
                "estimator": estimator,
                "choices": [c.name for c in self.choices],
                "loss": [u.tolist() for u in self.statistics.tables(estimator).unary],
                "images": [m.tolist() for m in self.statistics.mass()],
            }
        )
        atomically(lab.artifact("statistics.json"), lambda part: part.write_text(text))

    def _step(self, x: Inputs, y: Tree, probabilities: Probabilities) -> Tensor:
        """One optimiser step; the mean losses of widest, narrowest and random, `(3,)`."""
        self.pace(self._rate() * trees.size(x) / 256)
        self.optimizer.zero_grad(set_to_none=True)
        wide = self.supernet(x, self._widest)
        widest = self.task.loss(wide, y)
        widest.mean().backward()  # type: ignore[no-untyped-call]
        teacher = trees.mapped(Tensor.detach, wide)
        narrow = self.supernet(x, self._narrowest)
        self.task.distance(narrow, teacher).mean().backward()  # type: ignore[no-untyped-call]
        paths, random = self._random(x, teacher, probabilities)
        self.optimizer.step()
        with torch.no_grad():
            losses = torch.stack([widest, self.task.loss(narrow, y), self.task.loss(random, y)]).double().cpu()
        self.statistics.add(paths, losses[2] - losses[0])
        return losses.mean(1)

    def _random(self, x: Inputs, teacher: Tree, probabilities: Probabilities) -> tuple[Tensor, Tree]:
        """Distil into random paths; the paths, `(batch, n)`, and the outputs of the batch."""
        total = trees.size(x)
        if not self.paths:
            paths = draw(probabilities, total, self.paths_rng)
            gates = [one_hot(p, len(c.options)).to(self.like) for p, c in zip(paths.T, self.choices, strict=True)]
            output = self.supernet(x, gates)
            self.task.distance(output, teacher).mean().backward()  # type: ignore[no-untyped-call]
            return paths, trees.mapped(Tensor.detach, output)
        count = min(self.paths, max(1, total // 2))  # batch norm needs two images
        drawn, outputs, sizes = draw(probabilities, count, self.paths_rng), list[Tree](), list[int]()
        for path, images, taught in zip(drawn, trees.parts(x, count), trees.parts(teacher, count), strict=True):
            output, size = self.supernet(images, self.hard(path.tolist())), trees.size(images)
            (self.task.distance(output, taught).mean() * (size / total)).backward()  # type: ignore[no-untyped-call]
            outputs.append(trees.mapped(Tensor.detach, output))
            sizes.append(size)
        paths = torch.cat([p.expand(n, -1) for p, n in zip(drawn, sizes, strict=True)])
        return paths, trees.joined(outputs)

    def _rate(self) -> float:
        return cosine(self.done / self.epochs, self.lr) if self.schedule == "cosine" else self.lr

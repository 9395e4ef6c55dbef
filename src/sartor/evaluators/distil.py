"""A short training of a student, from the weights it inherits, on the logits of its teacher.

Source: Cao, Wang and Kitani, "Learnable embedding space for efficient neural architecture compression" (ICLR 2019):
ten epochs of Adam at a learning rate of 1e-3 with the mean squared error between the two networks' logits; the best
validation accuracy counts.
Deviations: AdamW, weight decay on weights of two dimensions or more only, and half a cosine down to zero, as in every
training here; students without hope can be stopped early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from sartor.core import trees
from sartor.core.abilities import Pretrained, require
from sartor.core.contracts import Batch, Evaluator, Problem, Task
from sartor.core.errors import CapabilityError, ConfigError, DivergedError
from sartor.core.metrics import Metric
from sartor.core.records import Arch, Proposal
from sartor.core.rng import derive, global_seed
from sartor.data.losses import apart
from sartor.exporting.weights_file import load_weights
from sartor.supernet.lineage import check_parent, keep_weights, kept_weights
from sartor.training import Recipe, evaluate, fit
from sartor.training.evaluation import mode, resolve
from sartor.training.fitting import check_fits

__all__ = ["Distil"]

Loss = Literal["logits", "recipe"]
_RECIPE: Mapping[str, Any] = {"epochs": 10, "optimizer": "adamw", "lr": 1e-3, "warmup": 0.0}


class Distil(Evaluator):
    """Trains the network that the space builds, with its inherited weights, for `fidelity` times the recipe's epochs.

    The teacher is the space's reference, with the weights that come with the space or those of a file.

    Args:
        recipe: Settings of the training, as a `Recipe` or as a table, whose settings replace those of the source. Its
            `validate` does not apply: every epoch is validated.
        loss: `logits`: the mean squared error between the logits of student and teacher; `recipe`: the task's loss and
            the recipe's distillation (`distil_weight`, `temperature`).
        keep: Which epoch counts: the `best` on the validation split, or the `last`.
        hopeless: Stop a student whose first metric after an epoch is below this share of the teacher's (an error: above
            the teacher's divided by it), and keep what it has; 0 stops none. The rule needs nothing but the student and
            the teacher, so that the order of trials, and an interrupt, change nothing.
        patience: Epochs before `hopeless` applies.
        curve: Whether to report the first metric of every epoch too, as `NAME_1`, `NAME_2`, ...
        teacher: File with the teacher's weights (safetensors, or a state dict); empty: those of the space.

    Raises:
        CapabilityError: The problem has no task, or there is no trained teacher.
        ConfigError: A number is out of range, or the recipe has no such setting.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        recipe: Recipe | Mapping[str, Any] | None = None,
        loss: Loss = "logits",
        keep: Literal["best", "last"] = "best",
        hopeless: float = 0.0,
        patience: int = 1,
        curve: bool = False,
        teacher: str | Path = "",
    ) -> None:
        if problem.task is None:
            raise CapabilityError("Distil needs a task, which the problem lacks; add one: [task] name = 'digits'")
        if loss not in get_args(Loss) or keep not in ("best", "last"):
            raise ConfigError(f"loss is {loss!r} and keep {keep!r}; use 'logits' or 'recipe', 'best' or 'last'")
        if not 0 <= hopeless < 1 or patience < 1:
            raise ConfigError(f"hopeless is {hopeless} and patience {patience}; use a share in [0, 1), and at least 1")
        given = recipe if isinstance(recipe, Recipe) else Recipe.of({**_RECIPE, **(recipe or {})})
        self.recipe, self.task, self.space = replace(given, validate=1), problem.task, problem.space
        self.loss, self.best, self.hopeless, self.patience, self.curve = loss, keep == "best", hopeless, patience, curve
        self.metric = self.task.metric
        self._file, self._master = teacher, _Teacher()
        if not teacher and not require(problem.space, Pretrained, self).trained:
            raise CapabilityError(
                "Distil needs a trained teacher, and the space's network has no weights; give them to the space "
                "(weights = 'FILE'), or to the evaluator (teacher = 'FILE')"
            )

    def __call__(self, proposal: Proposal, seed: int) -> Mapping[str, float]:
        """The task's metrics on the validation split, and `epochs`: how many were trained; without a parent.

        Raises:
            CapabilityError: There is a parent, whose weights only `inherit` can be given, or it is another network.
            ConfigError: The file holds the weights of another network.
            DataError: The teacher does not fit the task.
            DivergedError: Loss, metric or the teacher's logits are not finite.
        """
        return self.inherit(proposal, seed, parent=None, keep=None)

    def inherit(self, proposal: Proposal, seed: int, *, parent: Path | None, keep: Path | None) -> Mapping[str, float]:
        """The same, going on from the weights at `parent`, of the same arch; those that count go to `keep`."""
        teacher, arch = self._taught_by(), self.space.canonical(proposal.arch)
        check_parent(proposal.parent, parent, arch)
        with global_seed(derive(seed, "initialisation")):
            module = self.space.build(arch)
        if parent is not None:
            _go_on(module, arch, parent)
        watch = _Watch(self.metric, self._bar(), self.patience)
        watch.follow = module if keep is not None and self.best else None
        task, master = (self._task(teacher), None) if self.loss == "logits" else (self.task, teacher)
        recipe, training = self.recipe, derive(seed, "training")
        with suppress(_HopelessError):
            fit(module, task, recipe, seed=training, teacher=master, fidelity=proposal.fidelity, on_epoch=watch)
        metrics = self._report(watch.seen)
        if keep is not None:
            module.load_state_dict(watch.weights or module.state_dict())
            keep_weights(keep, arch, module)
        return metrics

    def epochs(self, fidelity: float) -> float:
        """Those of a student that is not stopped: that it would be, nobody knew before."""
        return float(self.recipe.epochs_at(fidelity))

    def _report(self, seen: list[dict[str, float]]) -> dict[str, float]:
        for epoch, metrics in enumerate(seen, 1):
            for name, value in metrics.items():
                if not isfinite(value):
                    raise DivergedError(f"{name} is {value} after epoch {epoch}; lower lr, or set clip = 1")
        name, sign = self.metric.name, self.metric.sign
        chosen = max(seen, key=lambda m: sign * m[name]) if self.best else seen[-1]
        curve = {f"{name}_{e}": m[name] for e, m in enumerate(seen, 1)} if self.curve else {}
        return {**chosen, **curve, "epochs": float(len(seen))}

    def _taught_by(self) -> nn.Module:
        if self._master.network is None:
            with global_seed(0):
                network = self.space.build(self.space.reference).eval()
            if self._file:
                load_weights(network, Path(self._file))
            check_fits(self.task, network)
            self._master.network = network.to(resolve(self.recipe.device)).requires_grad_(False)
        return self._master.network

    def _bar(self) -> float | None:
        """The worst that has hope, more is better: a share of what the teacher reaches; None stops nobody."""
        if not self.hopeless:
            return None
        if self._master.metric is None:
            metrics = evaluate(self._taught_by(), self.task.valid(), self.task)
            self._master.metric = self.metric.sign * metrics[self.metric.name]
        good = self._master.metric
        return good * self.hopeless if good > 0 else good / self.hopeless  # an error: as many times as large

    def _task(self, teacher: nn.Module) -> Task:
        """The task whose targets are the teacher's outputs."""
        train, amp = self.task.train, self.recipe.amp
        return replace(self.task, train=lambda generator: _Taught(train, teacher, generator, amp), loss=apart)


@dataclass
class _Teacher:
    """What is known of the teacher so far."""

    network: nn.Module | None = None
    metric: float | None = None


class _HopelessError(Exception):
    """Ends a training."""


@dataclass
class _Watch:
    """Keeps what every epoch reached, and ends those that stay below the bar."""

    metric: Metric
    bar: float | None
    patience: int

    def __post_init__(self) -> None:
        self.seen: list[dict[str, float]] = []
        self.follow: nn.Module | None = None
        self.weights: dict[str, Tensor] = {}

    def __call__(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        self.seen.append({k.removeprefix("valid_"): v for k, v in metrics.items() if k.startswith("valid_")})
        if self.follow is not None and self._is_first_best():
            self.weights = {name: value.detach().clone() for name, value in self.follow.state_dict().items()}
        if self.bar is not None and self.patience <= done < total and not self._reached()[-1] >= self.bar:
            raise _HopelessError

    def _reached(self) -> list[float]:
        """The deciding metric after every epoch, more is better."""
        return [self.metric.sign * metrics[self.metric.name] for metrics in self.seen]

    def _is_first_best(self) -> bool:
        *before, last = self._reached()
        return all(last > value for value in before)


@dataclass(frozen=True)
class _Taught:
    """An epoch with the teacher's logits as targets."""

    train: Callable[[torch.Generator], Iterable[Batch]]
    teacher: nn.Module
    generator: torch.Generator
    amp: str

    def __len__(self) -> int:
        return len(self.train(self.generator))  # type: ignore[arg-type] # a TypeError is the answer for those without

    def __iter__(self) -> Iterator[Batch]:
        place = next(self.teacher.parameters()).device
        precision = torch.autocast(place.type, getattr(torch, self.amp)) if self.amp else nullcontext()
        for inputs, _ in self.train(self.generator):
            with mode(self.teacher, training=False), torch.no_grad(), precision:
                outputs = trees.call(self.teacher, trees.to(inputs, place))
            if not all(t.isfinite().all() for t in trees.leaves(outputs)):
                raise DivergedError("the teacher's outputs are not finite; look at its weights, or at the data")
            yield inputs, trees.mapped(lambda t: t.float() if t.is_floating_point() else t, outputs)


def _go_on(module: nn.Module, arch: Arch, parent: Path) -> None:
    """Take over the weights of a trial of the same arch."""
    known, weights = kept_weights(parent)
    if known != arch:
        raise CapabilityError(f"{parent} holds another network ({known}); Distil goes on with the same one only")
    module.load_state_dict(weights)

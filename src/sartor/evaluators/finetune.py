"""A short fine-tune of the network cut out of its parent, or out of the supernet, then the validation split.

Source: the short-term fine-tune of Yang et al., "NetAdapt" (ECCV 2018).
Deviations: the learning rate falls to zero along half a cosine, as in every training here; batch norms are recalibrated
afterwards, on the same batches for every network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from sartor.core.abilities import Shareable, require
from sartor.core.contracts import Batch, Evaluator, Problem, Supernet
from sartor.core.errors import CapabilityError, ConfigError
from sartor.core.records import Proposal
from sartor.core.rng import derive, global_seed, torch_rng
from sartor.supernet.calibrate import recalibrate
from sartor.supernet.lineage import check_parent, keep_weights, kept_weights, read_supernet, write_back
from sartor.training import Recipe, batches_of, evaluate, fit
from sartor.training.steps import of_steps

__all__ = ["Finetune"]


class Finetune(Evaluator):
    """Starts from the parent's weights if the proposal has a parent, else from the supernet's.

    Args:
        recipe: Settings of the training, as a `Recipe` or as a table. Its `epochs`, `warmup` and `validate` do not
            apply, and `lr` only if the one here is absent.
        steps: Batches of the fine-tune at fidelity 1 (below: in proportion, at least one); 0 trains nothing.
        lr: Learning rate at the start; None takes the recipe's.
        supernet: File with the supernet's weights (safetensors), read at the first call; empty: the weights that the
            space's supernet comes with, which are trained if the space is made of a trained network.
        calibrate: Training batches that the batch-norm statistics are taken from, after the fine-tune; 0 keeps those of
            the fine-tune.
        batches: Validation batches to evaluate on; None takes all.

    Raises:
        CapabilityError: The problem has no task, or its space has no supernet.
        ConfigError: A number is out of range, or the recipe has no such setting.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        recipe: Recipe | Mapping[str, Any] | None = None,
        steps: int = 10,
        lr: float | None = 1e-3,
        supernet: str | Path = "",
        calibrate: int = 8,
        batches: int | None = None,
    ) -> None:
        if problem.task is None:
            raise CapabilityError("Finetune needs a task, which the problem lacks; add one: [task] name = 'digits'")
        if steps < 0 or calibrate < 0:
            raise ConfigError(f"steps is {steps} and calibrate is {calibrate}; both must be at least 0")
        if batches is not None and batches < 1:
            raise ConfigError(f"batches must be at least 1, or absent for all, got {batches}")
        base = Recipe.of(recipe)
        self.recipe = replace(base, epochs=1, warmup=0.0, validate=0, lr=base.lr if lr is None else lr)
        self.task = problem.task
        self.space = require(problem.space, Shareable, self)
        self.canonical = problem.space.canonical
        self.steps, self.path, self.calibrate, self.batches = steps, supernet, calibrate, batches
        self._stock: _Stock | None = None
        self._calibration: list[Batch] = []

    def __call__(self, proposal: Proposal, seed: int) -> Mapping[str, float]:
        """The task's metrics on the validation split; for a proposal without a parent.

        Raises:
            CapabilityError: It has one, whose weights only `inherit` can be given.
            DivergedError: The loss is not finite.
            StateError: The supernet's file cannot be read, or holds another supernet.
        """
        return self.inherit(proposal, seed, parent=None, keep=None)

    def inherit(self, proposal: Proposal, seed: int, *, parent: Path | None, keep: Path | None) -> Mapping[str, float]:
        """The same, from the weights at `parent`; those after the fine-tune go to `keep`. See `Heritable`."""
        check_parent(proposal.parent, parent, proposal.arch)
        arch = self.canonical(proposal.arch)
        with global_seed(derive(seed, "extraction")):  # a supernet may build the network before it fills it
            module = self._ancestor(parent).extract(arch)
        self._train(module, proposal.fidelity, seed)
        if self._calibration:
            recalibrate(module, self._calibration)
        metrics = evaluate(module, islice(self.task.valid(), self.batches), self.task, device=self.recipe.device)
        if keep is not None:
            keep_weights(keep, arch, module)
        return metrics

    def epochs(self, fidelity: float) -> float:
        """A fraction of one, mostly; the batches of an epoch are counted at the first call."""
        return self._steps(fidelity) / self._epoch if self.steps else 0.0

    @cached_property
    def _epoch(self) -> int:
        return batches_of(self.task)

    def _steps(self, fidelity: float) -> int:
        return max(1, round(self.steps * fidelity))

    def _train(self, module: nn.Module, fidelity: float, seed: int) -> None:
        if self.steps:
            task = of_steps(self.task, self._steps(fidelity))
            fit(module, task, self.recipe, seed=derive(seed, "training"))

    def _ancestor(self, parent: Path | None) -> Supernet:
        """The supernet, with the weights of the parent in their places."""
        if self._stock is None:
            self._stock = _Stock(read_supernet(self.space, self.path))
            self._calibration = list(islice(self.task.train(torch_rng(0, "calibration")), self.calibrate))
        return self._stock.holding(parent)


class _Stock:
    """A supernet that takes in the weights of one parent at a time: siblings follow each other."""

    def __init__(self, net: Supernet) -> None:
        self.net = net
        self.own = {name: value.clone() for name, value in net.state_dict().items()}
        self.held: object = None

    def holding(self, parent: Path | None) -> Supernet:
        """With the parent's weights, and its own where the parent has none."""
        found = None if parent is None else parent.stat()
        # A file of weights is replaced, by a search that was rewound, but never changed.
        key = None if found is None else (parent, found.st_ino, found.st_mtime_ns)
        if key != self.held:
            self.held = object()  # equals no key, should this be interrupted
            self.net.load_state_dict(self.own)
            if parent is not None:
                write_back(self.net, *kept_weights(parent))
            self.held = key
        return self.net

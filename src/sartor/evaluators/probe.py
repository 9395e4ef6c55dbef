"""A short look at what the job would make of a network: cut, fitted to the original, and a fraction of the training.

At the smallest fidelities nothing is trained: seconds per network, and the order of networks is mostly that after a
training (docs/methods/portfolio.md has the figures). Beside the task's metrics there is `distance`, how far the outputs
are from the original's on the same inputs: it tells networks apart that differ by a few examples in accuracy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import nn

from sartor.core import trees
from sartor.core.abilities import Pretrained
from sartor.core.contracts import Batch, Evaluator, Problem
from sartor.core.errors import CapabilityError, ConfigError
from sartor.core.records import Proposal
from sartor.core.rng import derive, global_seed, torch_rng
from sartor.core.trees import Tree
from sartor.training import Recipe, batches_of, evaluate, fit
from sartor.training.steps import of_steps

__all__ = ["Probe"]


class Probe(Evaluator):
    """Builds the network, fits its layers to the original's, trains it shortly with the original as the teacher.

    Args:
        recipe: Settings of the training, as a `Recipe` or as a table; the job gives its own. The schedule is squeezed
            into the shorter training.
        untrained: Fidelities up to this train nothing.
        examples: Training batches that the layers are fitted to, at most; the space takes as many examples as its
            setting `reconstruct` says.
        compared: Validation examples on which the distance from the original is taken, at most; 0 takes none. The
            metrics of a look without training are over their batches, too.
        batches: Validation batches for the metrics; None takes all.

    Raises:
        CapabilityError: The problem has no task.
        ConfigError: A number is out of range, or the recipe has no such setting.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        recipe: Recipe | Mapping[str, Any] | None = None,
        untrained: float = 0.02,
        examples: int = 8,
        compared: int = 1024,
        batches: int | None = None,
    ) -> None:
        if problem.task is None:
            raise CapabilityError("Probe needs a task, which the problem lacks; add one: [task] name = 'digits'")
        if not 0 <= untrained < 1 or examples < 1 or compared < 0 or (batches is not None and batches < 1):
            raise ConfigError(
                f"untrained is {untrained}, examples {examples}, compared {compared} and batches {batches}; untrained "
                "must be in [0, 1), examples and batches at least 1, compared at least 0"
            )
        self.recipe = Recipe.of(recipe)
        self.space, self.task = problem.space, problem.task
        self.untrained, self.examples, self.compared, self.batches = untrained, examples, compared, batches
        space = self.space
        self.trained = isinstance(space, Pretrained) and space.trained

    def __call__(self, proposal: Proposal, seed: int) -> Mapping[str, float]:
        """The task's metrics on the validation split, and `distance` if there is a trained original.

        Raises:
            DivergedError: The loss is not finite.
        """
        arch = self.space.canonical(proposal.arch)
        with global_seed(derive(seed, "initialisation")):
            module = self.space.build(arch)
        if isinstance(self.space, Pretrained) and self.space.reconstructs:
            self.space.reconstruct(arch, module, self._seen)
        steps = self._steps(proposal.fidelity)
        if steps:
            warmup = 0.5 * min(1.0, self.recipe.warmup / self.recipe.epochs)
            recipe = replace(self.recipe, epochs=1, warmup=warmup, validate=0)
            teacher = self._original if self.recipe.distil_weight and self.trained else None
            fit(module, of_steps(self.task, steps), recipe, seed=derive(0, "probe"), teacher=teacher)
        return self._judged(module, trained=bool(steps))

    def epochs(self, fidelity: float) -> float:
        return 0.0 if fidelity <= self.untrained else fidelity * self.recipe.epochs

    def _steps(self, fidelity: float) -> int:
        return 0 if fidelity <= self.untrained else max(1, round(self.epochs(fidelity) * self._epoch))

    @cached_property
    def _epoch(self) -> int:
        return batches_of(self.task)

    @cached_property
    def _seen(self) -> list[Batch]:
        return list(islice(self.task.train(torch_rng(0, "calibration")), self.examples))

    @cached_property
    def _original(self) -> nn.Module:
        with global_seed(derive(0, "original")):
            return self.space.build(self.space.reference).eval()

    @cached_property
    def _compared(self) -> list[Tree]:
        """What the original gives for the first validation batches; of the last one for as many as are wanted."""
        found, left = [], self.compared
        for inputs, _ in self.task.valid() if self.trained else ():
            if left <= 0:
                break
            part = trees.to(trees.rows(inputs, slice(left)), trees.device_of(self._original))
            with torch.no_grad():
                found.append(trees.call(self._original, part))
            left -= trees.size(part)
        return found

    def _judged(self, module: nn.Module, *, trained: bool) -> dict[str, float]:
        """The task's metrics; and the distance from the original, by the way."""
        waiting, total, count = deque(self._compared), 0.0, 0

        def compare(output: Tree) -> None:
            nonlocal total, count
            if waiting:
                wanted = waiting.popleft()
                given = trees.to(trees.rows(output, slice(trees.size(wanted))), trees.device_of(self._original))
                total += float(self.task.distance(given, wanted).double().sum())
                count += trees.size(wanted)

        looked_at = self.batches if trained or not waiting else len(waiting)
        batches = islice(self.task.valid(), looked_at)
        found = evaluate(module, batches, self.task, device=self.recipe.device, watch=compare)
        return {"distance": total / count} | found if count else found

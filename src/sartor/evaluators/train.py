"""Trains the network from scratch and returns its metrics on the validation split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sartor.core.contracts import Evaluator, Problem
from sartor.core.errors import CapabilityError
from sartor.core.records import Proposal
from sartor.core.rng import derive, global_seed
from sartor.training import Recipe, evaluate, fit

__all__ = ["Train"]


class Train(Evaluator):
    """A fresh initialisation, `fidelity` times the recipe's epochs (at least one), then the validation split.

    Args:
        recipe: Settings of the training, as a `Recipe` or as a table: `recipe = {epochs = 5, lr = 0.1}`.

    Raises:
        CapabilityError: The problem has no task.
        ConfigError: The recipe has no such setting, or it is out of range.
    """

    def __init__(self, problem: Problem, *, recipe: Recipe | Mapping[str, Any] | None = None) -> None:
        self.space = problem.space
        if problem.task is None:
            raise CapabilityError("Train needs a task, which the problem lacks; add one, as in [task] name = 'digits'")
        self.task = problem.task
        self.recipe = Recipe.of(recipe)

    def __call__(self, proposal: Proposal, seed: int) -> Mapping[str, float]:
        """The task's metrics on the validation split.

        Raises:
            DivergedError: The loss is not finite.
        """
        with global_seed(derive(seed, "initialisation")):
            module = self.space.build(proposal.arch)
        fit(module, self.task, self.recipe, seed=derive(seed, "training"), fidelity=proposal.fidelity)
        return evaluate(module, self.task.valid(), self.task, device=self.recipe.device)

    def epochs(self, fidelity: float) -> float:
        return float(self.recipe.epochs_at(fidelity))

"""What a search with shared weights learns about its choices, and what it answers with: networks within limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor

from sartor.core.abilities import Operated
from sartor.core.contracts import Lab, Problem, Space
from sartor.core.errors import ConfigError, DivergedError
from sartor.core.files import atomically
from sartor.core.records import Arch, Proposal
from sartor.core.state import pack, unpack
from sartor.solvers.budgets import Budget, feasible_levels, within
from sartor.supernet.preferences import Preferences
from sartor.supernet.slimmable import Schedule
from sartor.supernet.weights import Training, cosine

COOLED, LAST, MEMORY = 0.5, 0.05, 0.99
"""What a temperature loses over the training; where a cosine of steps ends; of the average loss."""


def skips(space: Space) -> list[frozenset[int]]:
    """Per choice the options that run nothing; none where the space does not list its operators."""
    if not isinstance(space, Operated):
        return [frozenset() for _ in space.choices]
    return [frozenset(k for k, ran in enumerate(o) if not ran) for o in space.operators().options]


class Controller:
    """Preferences, and Adam that moves them; all of its state is in `state_dict`.

    Args:
        problem: Limits whose cost models offer `Terms`.
        preferences: To start from.
        by: Who needs it, for messages.
        lr: Step of Adam.
        schedule: Of the step: `cosine` to a twentieth, or `constant`.
        temperature: How much the logits are held back, relative to the average loss per choice; halves.
        betas: Of Adam; with a first of 0 a logit without gradient stays where it is.
        weight_decay: Of Adam.

    Raises:
        BudgetError: No network meets the tightest limits.
        CapabilityError: A limited cost has no tables.
        ConfigError: The step is not positive.
    """

    saved = ("preferences", "optimizer", "scale", "seen")

    def __init__(
        self,
        problem: Problem,
        preferences: Preferences,
        *,
        by: object,
        lr: float,
        schedule: Schedule,
        temperature: float,
        betas: tuple[float, float] = (0.0, 0.999),
        weight_decay: float = 0.0,
    ) -> None:
        if not lr > 0 or temperature < 0:
            raise ConfigError(
                f"{type(by).__name__} has arch_lr = {lr} and temperature = {temperature}; the first must be positive, "
                "the second not negative"
            )
        if schedule not in get_args(Schedule):
            raise ConfigError(
                f"{type(by).__name__} has no schedule {schedule!r}; use {' or '.join(get_args(Schedule))}"
            )
        self.problem, self.preferences, self.lr, self._by = problem, preferences, lr, by
        self._schedule, self._temperature = schedule, temperature / len(preferences.sizes)
        self.levels = feasible_levels(problem, by)
        self.scale, self.seen = 0.0, False
        self.optimizer = torch.optim.Adam(preferences.parameters(), lr=lr, betas=betas, weight_decay=weight_decay)

    def temperature(self, loss: float, progress: float) -> float:
        """In units of the loss, after a fraction of the training.

        It follows the average loss, slowly: budget levels differ in their losses, and one scale must hold for all.
        """
        self.scale += (1 - MEMORY if self.seen else 1.0) * (abs(loss) - self.scale)
        self.seen = True
        return self._temperature * self.scale * (1 - COOLED * progress)

    def move(self, slopes: Tensor, progress: float, factor: float = 1.0) -> None:
        """One step of Adam downhill.

        Args:
            slopes: Of the loss by the logits, `(n, k)`.
            progress: Fraction of the training.
            factor: What the step is multiplied by.

        Raises:
            DivergedError: A slope is not finite.
        """
        if not bool(slopes.isfinite().all()):
            raise DivergedError(
                f"{type(self._by).__name__} got a gradient for its preferences that is not finite; lower lr, then "
                f"arch_lr (now {self.lr:g})"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(progress) * factor
        self.preferences.logits.grad = slopes.detach()
        self.optimizer.step()

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The preferred arch if it meets `limits`, else the most preferred one that does, found exactly.

        What is preferred the space says (`Moves.derive`); under a limit that this does not meet any arch will do.

        Raises:
            BudgetError: No arch meets them.
        """
        space, canonical = self.problem.space, self.problem.space.canonical
        best = space.moves.derive(self.preferences.preferred())
        if within(self.problem, best, limits):
            return best
        return canonical(Budget.of(self.problem, limits, self._by).best(self.preferences.unlikeliness()))

    def conclude(self, lab: Lab, training: Training) -> None:
        """Write `supernet.safetensors` and `preferences.json`; evaluate the answer to every budget level."""
        training.save_weights(lab)
        choices = self.problem.space.choices
        text = json.dumps(
            {
                "choices": [c.name for c in choices],
                "options": [list(c.options) for c in choices],
                "log_preferences": [row.tolist() for row in self.preferences.preferred()],
                "probabilities": [row.tolist() for row in self.preferences.rows(self.preferences.probs())],
            }
        )
        atomically(lab.artifact("preferences.json"), lambda part: part.write_text(text))
        lab.evaluate([Proposal(a) for a in dict.fromkeys(map(self.solve, self.levels))])

    def _rate(self, progress: float) -> float:
        return cosine(progress, self.lr, LAST * self.lr) if self._schedule == "cosine" else self.lr

    def state_dict(self) -> dict[str, Any]:
        """Logits and moments."""
        return pack(self, self.saved)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` took."""
        unpack(self, self.saved, state)

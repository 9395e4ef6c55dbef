"""What a solver answers: an arch and the proof of how good it is."""

from __future__ import annotations

from dataclasses import dataclass

from sartor.core.records import Arch


@dataclass(frozen=True)
class Solution:
    """A feasible arch with its certificate.

    Attributes:
        loss: Value of the loss tables at `arch`.
        costs: Value of each constraint's tables at `arch`; each is at most its limit.
        bound: Proved lower bound of the loss of every feasible arch (up to float64 rounding of the sums).
        optimal: Whether no feasible arch has a smaller loss (up to the same rounding).
        multiplier: Lagrange multiplier of the constraint, loss per unit of cost, if there is exactly one constraint.
        labels: Work done: partial archs that were extended, or whole archs that were decoded.
    """

    arch: Arch
    loss: float
    costs: tuple[float, ...]
    bound: float
    optimal: bool
    multiplier: float | None
    labels: int

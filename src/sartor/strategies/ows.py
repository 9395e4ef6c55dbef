"""OWS: train a slimmable supernet, then solve for the best widths under the budget (Berman et al., CVPR 2020).

Random paths are trained; what each width costs in loss is estimated; the network with the least predicted loss within
the limits is found exactly. Deviations:

* The decoder is exact for every budget, and for several at once; the paper's Lagrangian one, which reaches the convex
  hull only, is `decoder = "lagrangian"`.
* The predicted loss is an additive regression with a prior; the paper's mean is `statistics = "mean"`. See
  `sartor.supernet.statistics`, and `sartor.supernet.slimmable` for how paths are drawn.
* The learning rate is higher (0.4 per 256 images, the paper: 0.1), because trainings here are shorter, and falls along
  a cosine; `lr = 0.1` and `schedule = "constant"` are as in the paper's code.
"""

from __future__ import annotations

from collections.abc import Mapping

from sartor.core.contracts import Lab, Problem, Strategy
from sartor.core.records import Arch, Proposal
from sartor.solvers.budgets import Budget, Decoder, feasible_levels
from sartor.supernet.slimmable import Schedule, Slimmable, uniform
from sartor.supernet.statistics import Estimator

__all__ = ["Ows"]


class Ows(Strategy):
    """Optimal width search.

    Args:
        problem: A task, a `Shareable` space, and limits whose cost models offer `Terms`.
        seed: Of everything random.
        epochs: Of supernet training; one is one step.
        lr: Learning rate per 256 images of a batch (the paper's 0.1 suits trainings of a hundred thousand steps).
        schedule: `cosine` or `constant`.
        weight_decay: Of SGD.
        paths: Random paths per batch, each for an equal part of the images; 0 gives every image its own.
        statistics: `least_squares` or `mean`: how the loss of a width is estimated.
        half_life: Fraction of the training after which an image counts half in the statistics.
        decoder: `exact` or `lagrangian`.
        device: `cpu` or `cuda`.
    """

    saved = ("training",)
    smoke = {"epochs": 2}
    evaluator = "inherited"
    shares_weights = True

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        epochs: int = 20,
        lr: float = 0.4,
        schedule: Schedule = "cosine",
        weight_decay: float = 1e-5,
        paths: int = 4,
        statistics: Estimator = "least_squares",
        half_life: float = 0.2,
        decoder: Decoder = "exact",
        device: str = "cpu",
    ) -> None:
        self.problem, self.estimator, self.decoder = problem, statistics, decoder
        self.levels = feasible_levels(problem, self, decoder)
        self.training = Slimmable(
            problem,
            seed,
            by=self,
            epochs=epochs,
            lr=lr,
            schedule=schedule,
            weight_decay=weight_decay,
            half_life=half_life,
            paths=paths,
            device=device,
        )

    def step(self, lab: Lab) -> bool:
        """One epoch; at the end, evaluate the solution of every budget level."""
        if not self.training.finished:
            paths = uniform(self.problem.space.choices)
            self.training.epoch(lab, lambda _: paths)
            return True
        self.training.save(lab, self.estimator)
        lab.evaluate([Proposal(a) for a in dict.fromkeys(map(self.solve, self.levels))])
        return False

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The arch with the least predicted loss under `limits`, metric -> upper bound.

        Raises:
            BudgetError: No arch meets them.
            StateError: Nothing was trained yet.
        """
        loss = self.training.statistics.losses(self.estimator)
        return self.problem.space.canonical(Budget.of(self.problem, limits, self).best(loss, self.decoder))

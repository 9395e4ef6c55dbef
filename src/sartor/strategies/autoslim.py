"""AutoSlim: shrink the widest network greedily on a slimmable supernet (Yu and Huang, 2019, arXiv:1903.11728).

The supernet is trained as in OWS. Then, from the widest network down, every layer is tried one step narrower, and the
shrinking that loses the least accuracy with inherited weights is kept. Deviations:

* One walk serves every budget level: it goes on to the tightest and remembers where it passed the others.
* Of equal accuracies, the one that saves more of the budget wins.
* `solve` for a budget below the walk's end goes on with the losses of single widths that training has measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sartor import archs
from sartor.core.contracts import Lab, Problem, Strategy
from sartor.core.errors import BudgetError, ConfigError
from sartor.core.records import Arch, Proposal, Trial
from sartor.solvers.budgets import levels, within
from sartor.supernet.slimmable import Schedule, Slimmable, uniform

__all__ = ["Autoslim"]


class Autoslim(Strategy):
    """Greedy slimming.

    Args:
        problem: A task, a `Shareable` space, and limits with cost models.
        seed: Of everything random.
        epochs: Of supernet training; one is one step, and so is one round of shrinking.
        stride: Options that one shrinking skips; the last step of a layer may be shorter.
        lr: Learning rate per 256 images of a batch (the paper's 0.1 suits trainings of a hundred thousand steps).
        schedule: `cosine` or `constant`.
        weight_decay: Of SGD.
        paths: Random paths per batch, each for an equal part of the images; 0 gives every image its own.
        device: `cpu` or `cuda`.
    """

    saved = ("training", "accepted")
    smoke = {"epochs": 2}
    evaluator = "inherited"
    shares_weights = True
    within_limits = False

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        epochs: int = 20,
        stride: int = 1,
        lr: float = 0.4,
        schedule: Schedule = "cosine",
        weight_decay: float = 1e-5,
        paths: int = 4,
        device: str = "cpu",
    ) -> None:
        if stride < 1:
            raise ConfigError(f"stride is {stride}; it must be at least 1")
        self.problem, self.stride = problem, stride
        self.levels = levels(problem)
        if not within(problem, archs.smallest(problem.space), self.levels[-1]):
            raise BudgetError(f"the narrowest network does not meet {self.levels[-1]}; loosen the budget")
        self.training = Slimmable(
            problem,
            seed,
            by=self,
            epochs=epochs,
            lr=lr,
            schedule=schedule,
            weight_decay=weight_decay,
            half_life=0.2,
            paths=paths,
            device=device,
        )
        self.trials: list[Trial] = []
        self.accepted: list[int] = []
        """Which of the trials was the best of each round: at most as many as there are options."""

    def step(self, lab: Lab) -> bool:
        """One epoch, or one round of shrinking."""
        if not self.training.finished:
            paths = uniform(self.problem.space.choices)
            self.training.epoch(lab, lambda _: paths)
            return True
        if len(self.trail) == 1:
            self.training.save(lab, "least_squares")
        if within(self.problem, self.trail[-1], self.levels[-1]):
            lab.evaluate([Proposal(a) for a in dict.fromkeys(map(self.solve, self.levels))])
            return False
        trials = lab.evaluate([Proposal(a) for a in self._children(self.trail[-1])])
        best = min(range(len(trials)), key=lambda i: self._rank(trials[i]))
        self.accepted = [*self.accepted, len(self.trials) + best]
        self.trials += trials
        return True

    @property
    def trail(self) -> list[Arch]:
        """From the widest network down, one per round."""
        return [archs.largest(self.problem.space), *(self.trials[i].arch for i in self.accepted)]

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The first arch of the walk under `limits`, metric -> upper bound.

        Raises:
            BudgetError: Not even the narrowest network meets them.
        """
        for arch in self.trail:
            if within(self.problem, arch, limits):
                return arch
        arch, loss = self.trail[-1], self.training.statistics.losses("least_squares")
        while not within(self.problem, arch, limits):
            children = self._children(arch)
            if not children:
                raise BudgetError(f"the narrowest network does not meet {dict(limits)}; loosen the budget")
            arch = children[int(loss(children).argmin())]
        return arch

    def _children(self, arch: Arch) -> Sequence[Arch]:
        """`arch` with one layer narrower, for every layer that can be."""
        narrower = [(*arch[:i], max(0, k - self.stride), *arch[i + 1 :]) for i, k in enumerate(arch) if k > 0]
        return list(dict.fromkeys(map(self.problem.space.canonical, narrower)))

    def _rank(self, trial: Trial) -> tuple[float, float]:
        return self.problem.objectives[0].loss(trial), self._share(trial.arch)

    def _share(self, arch: Arch) -> float:
        """The tightest level's costs in units of their limits."""
        return sum(float(self.problem.cost(m)([arch])[0]) / upper for m, upper in self.levels[-1].items())

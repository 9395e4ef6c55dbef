"""What a student of a trained teacher is worth: accuracy within the budget, or accuracy and compression together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

import numpy as np

from sartor.core.contracts import Problem
from sartor.core.errors import ConfigError, DataError
from sartor.core.records import Arch, Trial
from sartor.regions.region import Price, Region
from sartor.rewards import check_maximised, compression

Kind: TypeAlias = Literal["auto", "compression", "feasible"]


class Worth:
    """The reward of a trial; higher is better.

    Args:
        problem: Its first objective is the quality; `compression` needs one to maximise, and a cost model of `params`.
        kind: `feasible` is the objective alone; `compression` is that of N2N (sartor.rewards.compression); `auto` is
            `compression` if nothing is limited and `params` are known.
        teacher: The quality of the teacher; 0: that of the first trial, which must then be the reference.

    Raises:
        CapabilityError: There is no cost model of `params`.
        ConfigError: There is no such reward, or it does not fit the problem.
    """

    def __init__(self, problem: Problem, kind: Kind, teacher: float) -> None:
        if kind not in get_args(Kind):
            raise ConfigError(f"no reward called {kind!r}; known: {', '.join(get_args(Kind))}")
        if not 0 <= teacher < math.inf:
            raise ConfigError(f"teacher is {teacher}; it is the teacher's accuracy, or 0 to evaluate it first")
        self.problem, self.objective = problem, problem.objectives[0]
        if kind == "auto":
            free = not problem.constraints and "params" in (problem.costs or {}) and self.objective.goal == "max"
            kind = "compression" if free else "feasible"
        self.kind, self.teacher, self.first = kind, teacher, kind == "compression" and teacher == 0
        self.reference: Arch = problem.space.canonical(problem.space.reference)
        if kind == "compression":
            check_maximised(kind, self.objective)
            self._price = Price(problem.cost("params"))
            self._whole = self._price(self.reference)
            if not self._whole > 0:
                raise DataError(f"the reference has {self._whole:g} params; there is nothing to compress")

    @property
    def unknown(self) -> bool:
        """Whether the teacher is to be evaluated."""
        return self.kind == "compression" and self.teacher == 0

    def meet(self, trials: Sequence[Trial]) -> None:
        """Take the teacher's accuracy from the first trial, if it is not known yet.

        Raises:
            DataError: The teacher has failed, or knows nothing.
        """
        if not (self.unknown and trials):
            return
        trial, remedy = trials[0], "train it, or set strategy.teacher to its accuracy"
        if not trial.ok:
            raise DataError(
                f"the teacher could not be evaluated ({trial.error}), so no student can be judged; {remedy}"
            )
        accuracy = trial.metrics[self.objective.metric]
        if not 0 < accuracy < math.inf:
            raise DataError(f"the teacher's {self.objective.metric} is {accuracy:g}; it must be positive: {remedy}")
        self.teacher = accuracy

    def __call__(self, trial: Trial) -> float:
        """The reward of a trial that has not failed.

        Raises:
            DataError: It is no number.
        """
        value = -self.objective.loss(trial)
        if self.kind == "compression":
            value = compression(self._price(trial.arch) / self._whole, value, self.teacher)
        if not math.isfinite(value):
            known = ", ".join(f"{m} {v:g}" for m, v in trial.metrics.items())
            raise DataError(f"the reward of trial {trial.index} is {value} ({known}); its evaluator must fail instead")
        return value

    def epochs(self, trials: Sequence[Trial]) -> list[int]:
        """After which epochs the trials report the objective, as `accuracy_1`, before the last that any of them has.

        Raises:
            ConfigError: None reports it.
        """
        names = {name for t in trials for name in t.metrics}
        prefix = f"{self.objective.metric}_"
        found = sorted(
            int(tail) for n in names if n.startswith(prefix) and (tail := n.removeprefix(prefix)).isdecimal()
        )
        if not found:
            raise ConfigError(
                f"no trial reports {prefix}1, {prefix}2, ... to learn from; set curve = true in [evaluator], which "
                "distil and tabular take, or curve = false in [strategy]"
            )
        return found[:-1]

    def curve(self, trial: Trial, epochs: Sequence[int]) -> list[float]:
        """The rewards after some epochs, not a number where the trial does not know, and the trial's own at the end."""
        metric, found = self.objective.metric, list[float]()
        for name in (f"{metric}_{epoch}" for epoch in epochs):
            early = replace(trial, metrics={**trial.metrics, metric: trial.metrics.get(name, 0.0)})
            found.append(self(early) if name in trial.metrics else math.nan)
        return [*found, self(trial)]

    def ranked(self, trials: Sequence[Trial], *, whole: bool = False) -> list[Trial]:
        """The students that did not fail, the best first; with `whole`, those trained longest first."""
        self.meet(trials)
        good = [t for t in trials[self.first :] if t.ok]
        return sorted(good, key=lambda t: (-t.fidelity if whole else 0.0, -self(t)))

    def answer(self, trials: Sequence[Trial], limits: Mapping[str, float], rng: np.random.Generator) -> Arch:
        """The best student under `limits`, metric -> bound, of those trained longest; if none fits, a random network.

        Raises:
            BudgetError: No network meets them.
        """
        region = Region(self.problem, limits)
        known = (t.arch for t in self.ranked(trials, whole=True) if t.arch in region)
        found = next(known, None)
        return region.sample(rng) if found is None else found

"""Optuna's samplers: TPE, NSGA-II and -III, CMA-ES, Gaussian processes, quasi-Monte Carlo (Akiba et al., KDD 2019).

Ordered choices are integers, the others categories; CMA-ES needs ordered choices, quasi-Monte Carlo takes all as
integers. All objectives of the problem are handed on where the sampler takes several.

* Budget: a suggestion outside of it is not evaluated but told as pruned, with its excess as Optuna's constraint values
  (from Optuna 5 on; TPE, the genetic samplers and the Gaussian process read them), and the sampler is asked again.
  After `tries` of them in a row the next one is repaired, and the result of the repaired network told as that of the
  suggestion. The Gaussian process overlooks pruned ones, and would suggest the same again: it repairs at once.
* Resuming: the study is rebuilt from the trials, by asking and telling again, which brings the sampler's own state back
  without a pickle. If another version of Optuna suggests something else there, the rest of the trials is added to the
  study as it was; what was pruned among them is forgotten.
* A failed trial is told as failed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from sartor.core.contracts import AskTell, Problem
from sartor.core.errors import CapabilityError, ConfigError, MissingExtraError
from sartor.core.records import Arch, Proposal, Trial
from sartor.core.rng import derive, numpy_rng
from sartor.regions.region import Region, answer, at_least_one

if TYPE_CHECKING:
    import optuna

__all__ = ["OptunaSampler"]

SAMPLERS = {
    "tpe": "TPESampler",
    "nsga2": "NSGAIISampler",
    "nsga3": "NSGAIIISampler",
    "cmaes": "CmaEsSampler",
    "gp": "GPSampler",
    "random": "RandomSampler",
    "qmc": "QMCSampler",
}
READERS = {"tpe", "nsga2", "nsga3", "gp"}
"""Those that read constraint values."""


class OptunaSampler(AskTell):
    """One of Optuna's samplers.

    Args:
        problem: Any problem; with several objectives any sampler but CMA-ES.
        seed: Of the sampler.
        trials: How many networks are evaluated; suggestions outside of the budget are not.
        batch: How many are proposed at a time.
        sampler: Its name.
        tries: Suggestions outside of the budget in a row before one is repaired; -1 is 0 for `gp`, 10 for the others.
        options: Further arguments of Optuna's sampler, as in {population_size = 20}.
    """

    saved = ("rng",)
    smoke = {"trials": 15, "batch": 3, "options": {"n_startup_trials": 5}}

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        trials: int = 100,
        batch: int = 1,
        sampler: Literal["tpe", "nsga2", "nsga3", "cmaes", "gp", "random", "qmc"] = "tpe",
        tries: int = -1,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        at_least_one(trials=trials, batch=batch)
        if sampler not in SAMPLERS:
            raise ConfigError(f"Optuna has no sampler {sampler!r}; known: {', '.join(SAMPLERS)}")
        _check(problem, sampler)
        self.problem, self.seed, self.total, self.batch = problem, seed, trials, batch
        self.sampler, self.options = sampler, dict(options or {})
        self.tries = tries if tries >= 0 else 0 if sampler == "gp" else 10
        self.region, self.rng = Region(problem), numpy_rng(seed, "repair")
        self.trials: list[Trial] = []
        self._told = self.trials
        """Whose results the study has."""
        self._open: list[optuna.Trial] = []
        self._study = self._new_study()

    def ask(self) -> list[Proposal]:
        """The next suggestions within budget, or repaired."""
        if self._told is not self.trials:
            self._replay()
        return self._propose(len(self.trials))

    def tell(self, trials: Sequence[Trial]) -> None:
        """Hand the results on."""
        self.trials += trials
        self._tell(trials)

    def solve(self, limits: Mapping[str, float]) -> Arch:
        """The best evaluated network under `limits`; if none meets them, a random one that does.

        Raises:
            BudgetError: No network meets them.
        """
        return answer(self.problem, self.trials, limits, numpy_rng(self.seed, "solve"))

    def _new_study(self) -> optuna.Study:
        import optuna  # noqa: PLC0415 - an extra

        choices, numbers = self.problem.space.choices, self.sampler in {"cmaes", "qmc"}
        self._distributions: dict[str, optuna.distributions.BaseDistribution] = {
            f"{i:02} {c.name}": optuna.distributions.IntDistribution(0, len(c.options) - 1)
            if c.ordered or numbers
            else optuna.distributions.CategoricalDistribution(range(len(c.options)))
            for i, c in enumerate(choices)
        }
        maximize, minimize = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
        directions = [maximize if o.goal == "max" else minimize for o in self.problem.objectives]
        loudness = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            with _quiet():
                constructor = getattr(optuna.samplers, SAMPLERS[self.sampler])
                sampler = constructor(seed=derive(self.seed, "optuna") % 2**32, **self.options)
                return optuna.create_study(directions=directions, sampler=sampler)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{SAMPLERS[self.sampler]} does not take {self.options}: {error}") from error
        finally:
            optuna.logging.set_verbosity(loudness)

    def _propose(self, done: int) -> list[Proposal]:
        count, misses, proposals = min(self.batch, self.total - done), 0, list[Proposal]()
        self._open = []
        while len(proposals) < count:
            arch = self.problem.space.canonical(self._suggest())
            taken = misses >= self.tries or arch in self.region
            misses = 0 if taken else misses + 1
            if taken:
                proposals.append(Proposal(self.region.repair(arch, self.rng)))
            else:
                self._prune()
        return proposals

    def _suggest(self) -> Arch:
        with _quiet():
            trial = self._study.ask(self._distributions)
            arch = tuple(int(trial.params[name]) for name in self._distributions)
            if self.sampler in READERS and hasattr(trial, "set_constraint"):
                for metric, ratio in zip(self.region.limits, self.region.ratios(arch), strict=True):
                    trial.set_constraint(metric, ratio - 1)
        self._open.append(trial)
        return arch

    def _prune(self) -> None:
        """The latest suggestion is not evaluated."""
        from optuna.trial import TrialState  # noqa: PLC0415 - an extra

        self._study.tell(self._open.pop(), state=TrialState.PRUNED)

    def _tell(self, trials: Sequence[Trial]) -> None:
        from optuna.trial import TrialState  # noqa: PLC0415 - an extra

        with _quiet():
            for trial, waiting in zip(trials, self._open, strict=True):
                if trial.ok:
                    self._study.tell(waiting, self._values(trial))
                else:
                    self._study.tell(waiting, state=TrialState.FAIL)
        self._open = []

    def _values(self, trial: Trial) -> list[float]:
        return [trial.metrics[o.metric] for o in self.problem.objectives]

    def _replay(self) -> None:
        """Bring a new study to where the trials are: they are those of a run that goes on."""
        rng, done = self.rng, 0
        self._told, self._study, self.rng = self.trials, self._new_study(), numpy_rng(self.seed, "repair")
        while done < len(self.trials):
            asked = [p.arch for p in self._propose(done)]
            batch = self.trials[done : done + len(asked)]
            if not asked or asked != [t.arch for t in batch]:
                self._add(self.trials[done:])
                break
            self._tell(batch)
            done += len(batch)
        self.rng = rng

    def _add(self, trials: Sequence[Trial]) -> None:
        """These, as they are."""
        from optuna.trial import TrialState, create_trial  # noqa: PLC0415 - an extra

        while self._open:
            self._study.tell(self._open.pop(), state=TrialState.FAIL)
        for trial in trials:
            self._study.add_trial(
                create_trial(
                    state=TrialState.COMPLETE if trial.ok else TrialState.FAIL,
                    values=self._values(trial) if trial.ok else None,
                    params=dict(zip(self._distributions, trial.arch, strict=True)),
                    distributions=self._distributions,
                )
            )


def _check(problem: Problem, sampler: str) -> None:
    needed = ["optuna", "cmaes"] if sampler == "cmaes" else ["optuna"]
    for package in needed:
        if find_spec(package) is None:
            raise MissingExtraError(f"strategy optuna_sampler needs {package}: pip install 'sartor[optuna]'")
    if sampler != "cmaes":
        return
    if len(problem.objectives) > 1:
        raise CapabilityError("cmaes takes one objective; take tpe, nsga2, nsga3 or gp for several")
    unordered = [c.name for c in problem.space.choices if not c.ordered and len(c.options) > 2]
    if unordered:
        raise CapabilityError(f"cmaes needs ordered choices, {unordered[0]!r} is not; take tpe, nsga2 or gp")


@contextmanager
def _quiet() -> Iterator[None]:
    """Some samplers and methods are marked as experimental; who names them knows."""
    from optuna.exceptions import ExperimentalWarning  # noqa: PLC0415 - an extra

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield

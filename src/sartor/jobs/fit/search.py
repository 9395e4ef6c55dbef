"""The search stage: strategy, evaluator and problem from the config, run in `search/` of the run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sartor import config as configs
from sartor.core import plugins
from sartor.core.abilities import Solvable
from sartor.core.contracts import CostModel, Evaluator, Problem, Strategy
from sartor.core.errors import BudgetError
from sartor.core.records import Arch, Constraint, Objective, Trial
from sartor.core.rng import derive
from sartor.jobs.fit.assemble import Parts
from sartor.jobs.fit.budget import human
from sartor.jobs.fit.stage import Job
from sartor.run import result as results
from sartor.run.journal import FileJournal, read_trials
from sartor.run.pool import Pool
from sartor.run.runner import Limits, restore, run

SUPERNET = "supernet.safetensors"


def ranked(
    trials: Sequence[Trial], costs: Mapping[str, CostModel], limits: Mapping[str, float], objective: Objective
) -> list[Arch]:
    """The networks under `limits` that a search has evaluated, the best first; of all fidelities only the highest."""
    inside = [t for t in trials if t.ok and all(float(costs[m]([t.arch])[0]) <= v for m, v in limits.items())]
    top = max((t.fidelity for t in inside), default=1.0)
    return list(dict.fromkeys(t.arch for t in sorted(inside, key=objective.loss) if t.fidelity == top))


def solve(
    strategy: Strategy,
    trials: Sequence[Trial],
    costs: Mapping[str, CostModel],
    limits: Mapping[str, float],
    objective: Objective,
) -> Arch:
    """The best arch under `limits`: asked of the strategy if it can tell, else the best trial.

    Raises:
        BudgetError: No arch, or no trial of the search, meets the limits.
    """
    if isinstance(strategy, Solvable):
        return strategy.solve(limits)
    inside = ranked(trials, costs, limits, objective)
    if not inside:
        words = ", ".join(f"{m} <= {human(m, v)}" for m, v in limits.items())
        raise BudgetError(f"none of the {len(trials)} trials of the search meets {words}; search longer")
    return inside[0]


def limits_of(config: configs.Table) -> dict[str, Any]:
    """The `[limits]`, where a trial has the time that `[workers]` gives it, if that says so."""
    own = {k: v for k, v in config.get("workers", {}).items() if k == "trial_seconds"}
    return {**config.get("limits", {}), **own}


@dataclass(frozen=True)
class Search:
    """A search that can be run, gone on with, and asked."""

    job: Job
    problem: Problem
    strategy: Strategy
    evaluator: Evaluator

    def run(self, pool: Pool | None = None) -> bool:
        """Run, or go on; a finished search only loads its state. False when a limit ended it: it can go on.

        Args:
            pool: Who runs the trials; None: this process.
        """
        job = self.job
        limits = configs.call(Limits, limits_of(job.parts.config))

        def progress(done: float, total: float, label: str) -> None:
            job.display.bar(done, total, label or "search")

        return run(
            self.strategy,
            self.problem,
            self.evaluator,
            folder=job.folder.path / "search",
            seed=derive(job.parts.seed, "search"),
            limits=limits,
            progress=progress,
            on_trial=job.ledger.tick,
            on_step=job.ledger.tick,
            pool=pool,
        )

    def trained(self, *, finished: bool) -> int:
        """How many networks it has trained: one per trial that trains its own, and one if a finished one shares it."""
        own = sum(t.ok and self.evaluator.epochs(t.fidelity) > 0 for t in self.trials())
        return own + int(self.strategy.shares_weights and finished)

    def restore(self) -> None:
        """Put the last checkpoint into the strategy, without running anything."""
        restore(self.strategy, self.job.folder.path / "search")

    def trials(self) -> list[Trial]:
        """All trials so far."""
        return read_trials(FileJournal(self.job.folder.path / "search" / "journal.jsonl"))

    def propose(self, limits: Mapping[str, float]) -> Arch:
        """The best arch under `limits`."""
        return solve(
            self.strategy, self.trials(), self.problem.costs or {}, limits, objective=self.problem.objectives[0]
        )

    def ranked(self, limits: Mapping[str, float]) -> list[Arch]:
        """The networks under `limits` that were evaluated, the best first."""
        return ranked(self.trials(), self.problem.costs or {}, limits, self.problem.objectives[0])

    def summary(self) -> results.Search:
        """What the report shows of the search, beside its journal."""
        trials, parts = self.trials(), self.job.parts
        return results.Search(
            strategy=parts.config["strategy"]["name"],
            settings={k: v for k, v in parts.config["strategy"].items() if k != "name"},
            evaluations=len(trials),
            failed=sum(not t.ok for t in trials),
            choices=tuple(parts.space.choices),
            objectives=self.problem.objectives,
            paid=tuple(
                results.Paid(fidelity, self.evaluator.epochs(fidelity))
                for fidelity in sorted({t.fidelity for t in trials})
            ),
        )


def problem_for(parts: Parts, costs: Mapping[str, CostModel], constraints: tuple[Constraint, ...]) -> Problem:
    """What a search of these parts is told."""
    return Problem(
        space=parts.space,
        objectives=(parts.task.metric.objective,),
        constraints=constraints,
        costs=dict(costs),
        task=parts.task.sealed(),
    )


def prepare(job: Job, costs: Mapping[str, CostModel], constraints: tuple[Constraint, ...]) -> Search:
    """Build the search of a job."""
    parts, problem = job.parts, problem_for(job.parts, costs, constraints)
    strategy = configs.build("strategies", parts.config["strategy"], problem, derive(parts.seed, "search"))
    return Search(job, problem, strategy, evaluator_for(parts, job.folder.path, type(strategy), problem))


def evaluator_for(parts: Parts, folder: Path, strategy: type[Strategy], problem: Problem) -> Evaluator:
    """The evaluator of the `[evaluator]` table, completed: the strategy's own, the supernet's file, the recipe."""
    table = {"name": strategy.evaluator, **parts.config.get("evaluator", {})}
    known = configs.keywords(plugins.load("evaluators", table["name"]))
    if "supernet" in known and strategy.shares_weights:  # the others train none and leave no file
        table.setdefault("supernet", str(folder / "search" / "artifacts" / SUPERNET))
    if "recipe" in known:
        table.setdefault("recipe", dict(parts.config.get("training", {})))
    evaluator: Evaluator = configs.build("evaluators", table, problem)
    return evaluator

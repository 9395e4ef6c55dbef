"""The search stage: strategy, evaluator and problem from the config, run in `search/` of the run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sartor import config as configs
from sartor.core import plugins
from sartor.core.contracts import CostModel, Evaluator, Problem, Strategy
from sartor.core.records import Arch, Constraint, Objective, Trial
from sartor.core.rng import derive
from sartor.jobs.choice import ranked, solve
from sartor.jobs.stages import Job
from sartor.run.journal import FileJournal, read_logs, read_trials
from sartor.run.runner import Limits, restore, run

SUPERNET = "supernet.safetensors"
NARROWING, PREFERENCES = "narrowing.jsonl", "preferences.json"


@dataclass(frozen=True)
class Search:
    """A search that can be run, gone on with, and asked.

    Attributes:
        finished: False when a limit ended it; it can go on.
    """

    job: Job
    problem: Problem
    strategy: Strategy
    evaluator: Evaluator

    @property
    def shares_weights(self) -> bool:
        """Whether one network is trained for all trials."""
        return self.strategy.shares_weights

    def run(self) -> bool:
        """Run, or go on; a finished search only loads its state."""
        job = self.job
        limits = configs.call(Limits, job.parts.config.get("limits", {}))

        def on_trial(trial: Trial) -> None:
            job.ledger.count(trained=int(trial.ok and self.evaluator.epochs(trial.fidelity) > 0))
            job.ledger.book()

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
            on_trial=on_trial,
            on_step=lambda _step: job.ledger.book(),
        )

    def restore(self) -> None:
        """Put the last checkpoint into the strategy, without running anything."""
        restore(self.strategy, self.job.folder.path / "search")

    def trials(self) -> list[Trial]:
        """All trials so far."""
        return read_trials(self._journal())

    def propose(self, limits: Mapping[str, float]) -> Arch:
        """The best arch under `limits`."""
        return solve(
            self.strategy, self.trials(), self.problem.costs or {}, limits, objective=self.problem.objectives[0]
        )

    def ranked(self, limits: Mapping[str, float]) -> list[Arch]:
        """The networks under `limits` that were evaluated, the best first."""
        return ranked(self.trials(), self.problem.costs or {}, limits, self.problem.objectives[0])

    def summary(self) -> dict[str, Any]:
        """What the report shows of the search."""
        trials, parts = self.trials(), self.job.parts
        settings = {k: v for k, v in parts.config["strategy"].items() if k != "name"}
        return {
            "strategy": parts.config["strategy"]["name"],
            "settings": settings,
            "evaluations": len(trials),
            "epochs": [self.evaluator.epochs(t.fidelity) for t in trials],
            "failed": sum(not t.ok for t in trials),
            "history": read_logs(self._journal()),
            "narrowing": self._narrowing(),
            "choices": [{"name": c.name, "options": list(c.options)} for c in parts.space.choices],
            "trials": [{"arch": list(t.arch), **t.metrics, "error": t.error} for t in trials],
        }

    def _narrowing(self) -> list[dict[str, Any]]:
        """How likely options were along the search, or at its end, where it wrote that down."""
        along, learned = (self.job.folder.path / "search" / "artifacts" / n for n in (NARROWING, PREFERENCES))
        if along.exists():
            return [json.loads(line) for line in along.read_text().splitlines()]
        if not learned.exists():
            return []
        epochs = [int(log["epoch"]) for log in read_logs(self._journal()) if "epoch" in log]
        return [{"epoch": max(epochs, default=0), "probabilities": json.loads(learned.read_text())["probabilities"]}]

    def _journal(self) -> FileJournal:
        return FileJournal(self.job.folder.path / "search" / "journal.jsonl")


def problem_for(job: Job, costs: Mapping[str, CostModel], constraints: tuple[Constraint, ...]) -> Problem:
    """What a search of a job is told."""
    parts = job.parts
    metric = next(iter(parts.task.metrics))
    return Problem(
        space=parts.space,
        objectives=(Objective(metric, "max"),),
        constraints=constraints,
        costs=dict(costs),
        task=parts.task.sealed(),
    )


def prepare(job: Job, costs: Mapping[str, CostModel], constraints: tuple[Constraint, ...]) -> Search:
    """Build the search of a job."""
    parts, problem = job.parts, problem_for(job, costs, constraints)
    strategy = configs.build("strategies", parts.config["strategy"], problem, derive(parts.seed, "search"))
    return Search(job, problem, strategy, evaluator_for(job, type(strategy), problem))


def evaluator_for(job: Job, strategy: type[Strategy], problem: Problem) -> Evaluator:
    """The evaluator of the `[evaluator]` table, completed: the strategy's own, the supernet's file, the recipe."""
    table = {"name": strategy.evaluator, **job.parts.config.get("evaluator", {})}
    known = configs.keywords(plugins.load("evaluators", table["name"]))
    if "supernet" in known and strategy.shares_weights:  # the others train none and leave no file
        table.setdefault("supernet", str(job.folder.path / "search" / "artifacts" / SUPERNET))
    if "recipe" in known:
        table.setdefault("recipe", dict(job.parts.config.get("training", {})))
    evaluator: Evaluator = configs.build("evaluators", table, problem)
    return evaluator

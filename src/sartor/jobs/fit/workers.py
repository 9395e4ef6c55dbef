"""The workers of a search, from the `[workers]` table; and what one of them does: rebuild the search's evaluator."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from sartor import config as configs
from sartor.config import Table
from sartor.core import plugins
from sartor.core.contracts import Problem, Strategy
from sartor.core.errors import ConfigError
from sartor.core.records import Constraint
from sartor.jobs.fit import search
from sartor.jobs.fit.assemble import OBJECT, analytic_costs, assemble
from sartor.jobs.fit.stage import Job
from sartor.run.folder import plain
from sartor.run.journal import FileJournal
from sartor.run.lab import judged_job
from sartor.run.pool import Pool
from sartor.run.work import Order, Work, Workers

SEEN = ".workers"
"""A file of the run folder by which workers know that they see the same one."""

NAMES = {
    "space": '{name = "widths", network = "my_module:make"}, or {name = "my_module:MySpace"}',
    "task": '{name = "my_module:MyTask"}, or the task that reads your files',
}
"""How what a caller has as an object is named."""


def workers_of(table: Table, order: Order | None, limits: Table | None = None) -> Workers:
    """The workers of a `[workers]` table; a time limit of trials is theirs, too, unless they have one of their own.

    Raises:
        ConfigError: There is no such kind or setting, or a trial asks for more than there is.
        MissingExtraError: A package is missing.
    """
    seconds = (limits or {}).get("trial_seconds")
    table = {"trial_seconds": seconds, **table} if seconds is not None else table
    made: Workers = configs.build("workers", {"name": "serial", **table}, order)
    return made


def check(config: Table) -> None:
    """Refuse, before anything takes time, what no worker can build or be.

    Raises:
        ConfigError: The space or the task is an object that only this process has; or as `workers_of`.
    """
    if "workers" not in config:
        return
    made = workers_of(config["workers"], None)
    if not made.used:
        return
    for kind, words in NAMES.items():
        name = str(config.get(kind, {}).get("name"))
        if name.startswith(OBJECT):
            raise ConfigError(
                f"workers build the {kind} again from its name, and {name.removeprefix(OBJECT)} is an object that only "
                f"this process has; name it, as in {kind} = {words}, or run without workers"
            )


def pool_for(job: Job, strategy: type[Strategy], problem: Problem) -> AbstractContextManager[Pool | None]:
    """Who runs the trials of a search; None: this process does."""
    config = job.parts.config
    if "workers" not in config:
        return nullcontext()
    workers = workers_of(config["workers"], _order(job, problem), config.get("limits"))
    if not workers.used:
        return nullcontext()
    if strategy.shares_weights:
        job.display.say("  no workers: the strategy trains one network for all its trials, in this process")
        return nullcontext()
    return Pool(workers, FileJournal(job.folder.path / "search" / "workers.jsonl"))


def seen(folder: Path) -> tuple[str, str]:
    """A file in the run folder, and the text in it, made up anew."""
    path, text = folder / SEEN, secrets.token_hex(8)
    path.write_text(text, encoding="utf-8")
    return str(path.absolute()), text


def _order(job: Job, problem: Problem) -> Order:
    arguments = {
        "config": rebuildable(job.parts.config),
        "seed": job.parts.seed,
        "folder": str(job.folder.path.absolute()),
        "constraints": [[c.metric, c.upper, list(c.levels)] for c in problem.constraints],
    }
    return Order(f"{__name__}:trials", arguments, seen(job.folder.path))


def rebuildable(config: Table) -> dict[str, Any]:
    """The config as a worker builds it: workers time nothing, and need no target."""
    kept = {k: v for k, v in config.items() if k not in ("export", "target", "workers")}
    return {**plain(kept), "target": {"name": "torch_cpu"}}


def trials(arguments: Mapping[str, Any]) -> Work:
    """What a worker does: the trials of a search.

    Its problem has the costs that nobody needs to measure, and all constraints.
    """
    parts = assemble(arguments["config"])
    strategy = plugins.load("strategies", parts.config["strategy"]["name"])
    constraints = tuple(Constraint(metric, upper, tuple(levels)) for metric, upper, levels in arguments["constraints"])
    folder = Path(arguments["folder"])
    problem = search.problem_for(parts, analytic_costs(parts.space), constraints)
    evaluator = search.evaluator_for(parts, folder, strategy, problem)
    return lambda job: judged_job(evaluator, job, folder / "search" / "artifacts")

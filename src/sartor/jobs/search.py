"""The search alone: latency model, strategy, and the architectures it names, without training them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sartor import archs
from sartor.config import Table
from sartor.core.errors import BudgetError
from sartor.jobs.fit.assemble import Objects, assemble
from sartor.jobs.fit.deliver import environment
from sartor.jobs.fit.pipeline import Pipeline
from sartor.jobs.fit.stage import Job
from sartor.jobs.fit.workers import check
from sartor.run import result as results
from sartor.run.folder import RunFolder
from sartor.run.ledger import Ledger
from sartor.run.progress import Display, Silent
from sartor.run.result import Found, Searched


def search(
    settings: Table,
    folder: Path,
    *,
    command: str,
    display: Display | None = None,
    age: float = 0.0,
    objects: Objects | None = None,
) -> Searched:
    """Run, or go on with, the stages of a fit up to the search; a later `fit` in the same folder takes them over.

    Returns:
        Per point of the budget the arch, in words too, and its *modelled* costs. Written to `search.json` in the run
        folder once the search has ended.

    Raises:
        SartorError: As `sartor.fit`.
    """
    display = display or Silent()
    check(settings)
    parts = assemble(settings, **(objects or Objects()))
    with RunFolder(folder, settings) as run:
        if (folder / results.SEARCH_FILE).exists():
            return results.read_searched(folder)
        job = Job(parts, run, Ledger(run.journal, age=age), display)
        try:
            pipeline = Pipeline(job)
            pipeline.run_search()
            result = Searched(
                found=tuple(_found(pipeline, limits) for limits in pipeline.limits),
                search=pipeline.search.summary(),
                latency_model=pipeline.latency_model,
                spent=job.ledger.summary(),
                environment=environment(parts, command),
            )
            if run.stage_result("search.run") is not None:  # else a limit stopped it, and it can go on
                results.write(folder, result)
        finally:
            job.ledger.book()
            display.close()
    return result


def _found(pipeline: Pipeline, limits: Mapping[str, float]) -> Found:
    try:
        arch = pipeline.search.propose(limits)
    except BudgetError as error:
        return Found(dict(limits), None, str(error))
    words, whole = (archs.describe(pipeline.space, a) for a in (arch, pipeline.space.reference))
    return Found(
        budget=dict(limits),
        arch=arch,
        options=words,
        changed=tuple(name for name, word in words.items() if word != whole[name]),
        modelled={metric: float(model([arch])[0]) for metric, model in pipeline.costs.items()},
    )

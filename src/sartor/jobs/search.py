"""The search alone: latency model, strategy, and the architectures it names, without training them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sartor import archs
from sartor.core.errors import BudgetError
from sartor.jobs.fit.deliver import environment
from sartor.jobs.fit.assemble import assemble
from sartor.jobs.fit.pipeline import Pipeline
from sartor.jobs.fit.stage import Job
from sartor.run.folder import RunFolder, read_json, write_json
from sartor.run.ledger import Ledger
from sartor.run.progress import Display, Silent

RESULT = "search.json"


def search(
    settings: Mapping[str, Any],
    folder: Path,
    *,
    command: str,
    display: Display | None = None,
    age: float = 0.0,
    objects: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run, or go on with, the stages of a fit up to the search; a later `fit` in the same folder takes them over.

    Returns:
        Per point of the budget the arch, its options by choice (`widths`), which of them are not the reference's
        (`changed`), its *modelled* costs, and the search's trials. Written to `search.json` in the run folder.

    Raises:
        SartorError: As `sartor.fit`.
    """
    display = display or Silent()
    parts = assemble(settings, **(objects or {}))
    with RunFolder(folder, settings) as run:
        if (folder / RESULT).exists():
            return dict(read_json(folder / RESULT))
        job = Job(parts, run, Ledger(run.journal, age=age), display)
        try:
            pipeline = Pipeline(job)
            pipeline.run_search()
            found = [_found(pipeline, point) for point in pipeline.points]
            result = {
                "found": found,
                "search": pipeline.search.summary(),
                "latency_model": run.stage_result("latency_model.fit"),
                "ledger": job.ledger.summary(),
                "environment": environment(parts, command),
            }
            if run.stage_result("search.run") is not None:  # else a limit stopped it, and it can go on
                write_json(folder / RESULT, result)
        finally:
            job.ledger.book()
            display.close()
    return result


def _found(pipeline: Pipeline, point: Mapping[str, float]) -> dict[str, Any]:
    try:
        arch = pipeline.search.propose(point)
    except BudgetError as error:
        return {"budget": dict(point), "arch": None, "reason": str(error)}
    words, whole = (archs.describe(pipeline.space, a) for a in (arch, pipeline.space.reference))
    return {
        "budget": dict(point),
        "arch": list(arch),
        "widths": words,
        "changed": [name for name, word in words.items() if word != whole[name]],
        "modelled": {metric: float(model([arch])[0]) for metric, model in pipeline.costs.items()},
    }

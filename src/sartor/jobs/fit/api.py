"""The main job: from a space, data, a target and a budget to a trained, verified, exported network."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from sartor import config, recipes
from sartor.config import Table
from sartor.core import files
from sartor.core.contracts import Batch, Space, Target, Task
from sartor.core.errors import ConfigError
from sartor.exporting.weights_file import load_own
from sartor.jobs.fit.assemble import Objects, Parts, assemble, of_a_module, stand_in
from sartor.jobs.fit.deliver import deliver, digests, environment, look_after
from sartor.jobs.fit.pipeline import Pipeline
from sartor.jobs.fit.stage import Job
from sartor.jobs.fit.workers import check
from sartor.report.page import render
from sartor.run import result as results
from sartor.run.folder import RunFolder
from sartor.run.ledger import Ledger
from sartor.run.progress import Display, Silent
from sartor.run.result import Point, Result, Trace
from sartor.tasks.loaders import loaders

PAGE = "report.html"
"""What a person opens; made of the result, and made anew where it is missing."""


@dataclass(frozen=True)
class Fit:
    """What a fit gives back.

    Attributes:
        network: The trained winner, in eval mode: plain PyTorch, nothing of sartor inside. It is the search's own, or
            the uniformly scaled network where that is the better one; `result` says which.
        networks: The winners of all points of the budget, in the budget's order.
        metrics: The winner's metrics on the test split.
        verdict: PASS, FAIL or UNSURE: the worst of all points.
        result: All of `result.json`, with intervals, the other networks, and where the time went.
        folder: The run folder.
    """

    network: nn.Module
    networks: tuple[nn.Module, ...]
    metrics: Mapping[str, float]
    verdict: str
    result: Result
    folder: Path


def fit(
    space: Space | nn.Module | Table | str | None = None,
    task: Task | Table | str | Sequence[Iterable[Batch]] | None = None,
    *,
    budget: Table | None = None,
    target: Target | Table | str | None = None,
    strategy: Table | str | None = None,
    folder: Path | str = "runs/fit",
    seed: int | None = None,
    recipe: str | Path | Table | None = None,
    display: Display | None = None,
    **tables: Table,
) -> Fit:
    """Find, train and verify the best network of a space inside a budget: the search's, or uniform scaling's if better.

    Args:
        space: A `Space`, the name of one, or its table, e.g. `{"name": "mobilenet_v1", "width": 0.5}`.
        task: A `Task`, the name of one, its table, or your own (train, valid, test) DataLoaders.
        budget: Metric -> bound, e.g. `{"latency_ms": 5.0}`, `{"latency_ms": "50%"}`, `{"macs": [2e6, 4e6]}`.
        target: A `Target`, the name of one, or its table.
        strategy: The name of a strategy or its table.
        folder: The run folder; the same call on the same folder goes on, or returns the finished result.
        seed: Of everything random.
        recipe: What is not given is taken from here: a packaged recipe, a TOML file, or tables; None: `network` for a
            module, else `digits`.
        display: Where progress is shown; nowhere by default.
        tables: Further tables of the config: `training`, `latency_model`, `verification`, `evaluator`, `limits`,
            `workers`.

    Returns:
        The trained network and all that is known about it.

    Raises:
        SartorError: The config is wrong, the budget cannot be met, the data does not fit, ...: says what to do.
    """
    if isinstance(task, Sequence) and not isinstance(task, str):
        train, valid, test = task
        task = loaders(train=train, valid=valid, test=test)
    given = {"space": space, "task": task, "target": target, "strategy": strategy}
    objects = {k: v for k, v in given.items() if isinstance(v, Space | Task | Target | nn.Module)}
    named = {k: _table(v) for k, v in given.items() if v is not None and k not in objects}
    base = _base(recipe if recipe is not None else "network" if isinstance(space, nn.Module) else "digits")
    named |= {k: stand_in(v) for k, v in objects.items()}
    if isinstance(space, nn.Module):  # the recipe may say how its widths are to be cut
        named["space"] = of_a_module(base.get("space", {})) | named["space"]
    top = {**named, **tables, **({"budget": budget} if budget else {})}
    settings = config.merge(base, top)
    settings["budget"] = dict(budget or base.get("budget", {}))  # metrics of a recipe are not added to the caller's
    settings["seed"] = base.get("seed", 0) if seed is None else seed
    return fit_config(
        settings, Path(folder), display=display, command="sartor.fit(...)", objects=cast(Objects, objects)
    )


def fit_config(
    settings: Table,
    folder: Path,
    *,
    display: Display | None = None,
    age: float = 0.0,
    command: str | None = None,
    objects: Objects | None = None,
) -> Fit:
    """`fit` for a whole config.

    Args:
        settings: The tables of the config.
        folder: The run folder.
        display: Where progress is shown.
        age: Seconds that the process had spent before (imports): they count, too.
        command: What the user typed, for the report.
        objects: `space`, `task` or `target` as objects, instead of their tables.
    """
    display = display or Silent()
    check(settings)
    parts = assemble(settings, **(objects or Objects()))
    with RunFolder(folder, settings) as run:
        if not run.finished:
            job = Job(parts, run, Ledger(run.journal, age=age), display)
            try:
                _fit(job, command or " ".join(["sartor", *sys.argv[1:]]))
            finally:
                display.close()
        else:
            result = results.read_result(run.path)
            look_after(parts, run.path, result, display)
            if not (run.path / PAGE).exists():
                _draw(result, results.read_trace(run.path / "search"), run.path)
        return _loaded(parts, run)


def _fit(job: Job, command: str) -> None:
    pipeline = Pipeline(job)
    try:
        points = pipeline.run()
        with job.ledger.stage("report"):
            _write(job, pipeline, points, command)
    except BaseException:
        job.ledger.book()
        raise


def _write(job: Job, pipeline: Pipeline, points: Sequence[Point], command: str) -> None:
    folder = job.folder.path
    for point in points:
        deliver(job, point.winner, folder / point.folder)
    if len(points) > 1:
        deliver(job, points[0].winner, folder)
    result = Result(
        title=job.parts.config.get("title", "sartor fit"),
        task=job.parts.task.name,
        metrics=job.parts.task.metrics,
        reference=pipeline.entries["reference"],
        points=tuple(points),
        search=pipeline.search.summary(),
        latency_model=pipeline.latency_model,
        environment=environment(job.parts, command),
        files=digests(folder, points, pipeline.entries.values()),
    )
    trace = results.read_trace(folder / "search")
    # The page shows the ledger, and takes time itself: it is drawn once to book that, and again to show it.
    render(replace(result, spent=job.ledger.summary()), trace, folder)
    result = replace(result, spent=job.ledger.summary())
    _draw(result, trace, folder)
    results.write(folder, result)  # last: a run is finished when its result is there


def _draw(result: Result, trace: Trace, folder: Path) -> None:
    page = render(result, trace, folder)
    files.atomically(folder / PAGE, lambda part: part.write_text(page, encoding="utf-8"))


def _loaded(parts: Parts, run: RunFolder) -> Fit:
    result = results.read_result(run.path)
    networks = []
    for point in result.points:
        module = parts.build(point.winner.arch, "train")
        load_own(module, run.path / point.folder / "model.safetensors")
        networks.append(module.eval())
    metrics = {name: score.value for name, score in result.points[0].winner.scores.items()}
    return Fit(networks[0], tuple(networks), metrics, result.verdict, result, run.path)


def _base(recipe: str | Path | Table) -> Table:
    if isinstance(recipe, Mapping):
        return recipe
    return config.read(recipes.find(recipe))


def _table(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping):
        return dict(value)
    raise ConfigError(f"expected a name, a table or an object of sartor, got {type(value).__name__}")

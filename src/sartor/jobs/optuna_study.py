"""A search as a study of Optuna (Akiba et al., KDD 2019), in a file that optuna-dashboard opens.

The file is SQLite, written by Optuna's own `RDBStorage`. A trial is there with its options as categories, the
objective, its costs, fidelity and parent as attributes, and by how much it is over each limit as Optuna's constraints.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartor.config import Table
from sartor.core.errors import ConfigError, MissingExtraError, StateError
from sartor.core.files import atomically
from sartor.core.records import Choice, Constraint, Objective, Trial
from sartor.jobs.fit.assemble import analytic_costs, assemble
from sartor.jobs.fit.budget import constraints
from sartor.jobs.fit.reference import Ends
from sartor.run.folder import read_config
from sartor.run.journal import FileJournal, read_trials
from sartor.run.result import FILE, SEARCH_FILE, read_result, read_searched
from sartor.run.schema import decode

if TYPE_CHECKING:
    import optuna

MAGIC = b"SQLite format 3\x00"
OWNER = "sartor_folder"
"""The attribute of a study that says which folder it shows."""


@dataclass(frozen=True)
class Searched:
    """One search, as its run folder tells it.

    Attributes:
        name: Of the study.
        about: What else the study says of itself.
    """

    name: str
    folder: Path
    choices: tuple[Choice, ...]
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    trials: tuple[Trial, ...]
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Posed:
    """What a search was told."""

    choices: tuple[Choice, ...]
    objectives: tuple[Objective, ...]
    limits: Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Study:
    """A search in the file, with so many trials, of which some have failed."""

    name: str
    trials: int
    failed: int


@dataclass(frozen=True)
class Studies:
    """The file, the command that shows it, and what it holds now of the folder."""

    file: str
    open: str
    studies: tuple[Study, ...]


def export_studies(folder: Path, out: Path) -> Studies:
    """Write the searches of a folder into an Optuna storage; those that it has of the same folder are replaced.

    The file is whole at any time: what another export put there stays, and a kill in the middle leaves the old one.

    Args:
        folder: A run folder of `sartor fit` or `sartor search`, finished or not, or a folder of such folders.
        out: The SQLite file.

    Raises:
        MissingExtraError: Optuna is not installed.
        StateError: There is no search in the folder, or the file is none of Optuna's, or has a study of that name that
            shows something else.
    """
    _require_optuna()
    found = [_searched(place, folder) for place in _places(folder)]
    if out.is_dir():
        raise StateError(f"{out} is a folder; name a file, as in --out {out / 'optuna.db'}")
    with tempfile.TemporaryDirectory(prefix="sartor-") as name:
        part = Path(name) / "optuna.db"
        if out.exists():
            _check_storage(out)
            shutil.copyfile(out, part)
        _write(part, out, found)
        out.parent.mkdir(parents=True, exist_ok=True)
        atomically(out, lambda path: shutil.copyfile(part, path))
    studies = tuple(Study(s.name, len(s.trials), sum(not t.ok for t in s.trials)) for s in found)
    return Studies(str(out), f"optuna-dashboard sqlite:///{out}", studies)


def _require_optuna() -> None:
    try:
        import optuna  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError("an export to optuna needs optuna: pip install 'sartor[optuna]'") from error


def _places(folder: Path) -> list[Path]:
    """The run folders with a search: the folder itself, or those below it."""
    journals = [folder / "search" / "journal.jsonl"]
    if not journals[0].exists():
        journals = sorted(folder.glob("**/search/journal.jsonl"))
    places = [journal.parent.parent for journal in journals]
    if not places:
        raise StateError(f"no search has begun in {folder}; name the folder of a sartor fit or a sartor search")
    return places


def _searched(place: Path, folder: Path) -> Searched:
    settings = read_config(place / "config.toml")
    trials = tuple(read_trials(FileJournal(place / "search" / "journal.jsonl")))
    posed = _told(place) or _asked(place, settings)
    name = folder.resolve().name
    return Searched(
        name=name if place == folder else f"{name}/{place.relative_to(folder).as_posix()}",
        folder=place.resolve(),
        choices=posed.choices,
        objectives=posed.objectives,
        constraints=constraints(posed.limits),
        trials=trials,
        about={"strategy": settings["strategy"], "budget": settings["budget"], "seed": settings.get("seed", 0)},
    )


def _told(place: Path) -> Posed | None:
    """What a search that has ended was told, from its result: neither data nor network is needed."""
    if (place / FILE).exists():
        result = read_result(place)
        return Posed(result.search.choices, result.search.objectives, [p.budget for p in result.points])
    if (place / SEARCH_FILE).exists():
        found = read_searched(place)
        return Posed(found.search.choices, found.search.objectives, [f.budget for f in found.found])
    return None


def _asked(place: Path, settings: Table) -> Posed:
    """The same of a search that goes on: its space and its task say it."""
    try:
        parts = assemble(settings)
    except ConfigError as error:
        raise StateError(
            f"the search in {place} has not ended, and cannot be read without its space: {error}"
        ) from error
    full = {m: float(c([parts.space.reference])[0]) for m, c in analytic_costs(parts.space).items()}
    measured = [
        decode(Ends, r["result"], str(place))
        for r in FileJournal(place / "journal.jsonl").read()
        if r.get("name") == "reference.latency"
    ]
    full["latency_ms"] = measured[-1].anchor.value if measured else nan
    limits = parts.budget.points(full)
    if not all(isfinite(v) for point in limits for v in point.values()):
        raise StateError(
            f"the reference of {place} is not measured yet, of which the budget is a part; finish the search"
        )
    return Posed(parts.space.choices, (parts.task.metric.objective,), limits)


def _check_storage(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise StateError(f"{path} is no storage of Optuna in SQLite; name another file")


def _write(part: Path, out: Path, found: Sequence[Searched]) -> None:
    """Write all studies; `out` is what an error calls the file."""
    import optuna  # noqa: PLC0415 - an extra
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - optuna needs it

    with _quiet(), ExitStack() as stack:
        try:
            storage = optuna.storages.RDBStorage(f"sqlite:///{part}")
            stack.callback(storage.engine.dispose)
            stack.callback(storage.remove_session)
            for searched in found:
                _replace(storage, out, searched)
                _study(storage, searched)
        except (RuntimeError, SQLAlchemyError, optuna.exceptions.OptunaError) as error:
            reason = str(error).partition("\n")[0]
            raise StateError(f"this version of Optuna cannot write to {out} ({reason}); name another file") from error


def _replace(storage: optuna.storages.RDBStorage, out: Path, searched: Searched) -> None:
    """Remove the study of an earlier export, and no other."""
    for study in storage.get_all_studies():
        if study.study_name != searched.name:
            continue
        owner = study.user_attrs.get(OWNER)
        if owner != str(searched.folder):
            raise StateError(
                f"{out} has a study {searched.name!r} already, which shows {owner or 'something else'}; "
                "name another file with --out"
            )
        storage.delete_study(study._study_id)


def _study(storage: optuna.storages.RDBStorage, searched: Searched) -> None:
    import optuna  # noqa: PLC0415 - an extra

    names = {"max": optuna.study.StudyDirection.MAXIMIZE, "min": optuna.study.StudyDirection.MINIMIZE}
    study = optuna.create_study(
        storage=storage, study_name=searched.name, directions=[names[o.goal] for o in searched.objectives]
    )
    study.set_metric_names([o.metric for o in searched.objectives])
    for key, value in {OWNER: str(searched.folder), **searched.about}.items():
        study.set_user_attr(key, value)
    study.set_user_attr("limits", {c.metric: c.upper for c in searched.constraints})
    categories = {c.name: optuna.distributions.CategoricalDistribution(c.options) for c in searched.choices}
    # The journal has no times; without this all trials would seem to be of now.
    written = datetime.fromtimestamp((searched.folder / "search" / "journal.jsonl").stat().st_mtime)
    for trial in searched.trials:
        frozen = _frozen(searched, trial, categories)
        frozen.datetime_start = frozen.datetime_complete = written
        study.add_trial(frozen)


def _frozen(
    searched: Searched, trial: Trial, categories: Mapping[str, optuna.distributions.CategoricalDistribution]
) -> optuna.trial.FrozenTrial:
    from optuna.trial import TrialState, create_trial  # noqa: PLC0415 - an extra

    goals = [o.metric for o in searched.objectives]
    over = [trial.metrics[c.metric] - c.upper for c in searched.constraints if c.metric in trial.metrics]
    attributes: dict[str, Any] = {m: v for m, v in trial.metrics.items() if m not in goals}
    attributes |= {k: v for k, v in (("parent", trial.parent), ("error", trial.error)) if v is not None}
    return create_trial(
        state=TrialState.COMPLETE if trial.ok else TrialState.FAIL,
        values=[trial.metrics[m] for m in goals] if trial.ok else None,
        params={c.name: c.options[a] for c, a in zip(searched.choices, trial.arch, strict=True)},
        distributions=dict(categories),
        user_attrs={"fidelity": trial.fidelity, **attributes},
        # The list is what optuna-dashboard reads, and every version of Optuna.
        system_attrs={"constraints": over} if over else {},
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells of every study that it makes; names of metrics are marked as experimental."""
    import optuna  # noqa: PLC0415 - an extra

    loudness = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(loudness)

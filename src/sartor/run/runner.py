"""The one loop of sartor: step, checkpoint, stop.

A checkpoint is written when `LAG` seconds have passed since the last one, and when the session ends, in whatever way
that lets Python say a last word. After a kill the steps since then are done again; their trials are in the journal, and
are handed back. So what a step costs does not depend on the disk, and what is checkpointed not on the number of trials:
a strategy gets them back from the journal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sartor.core import state
from sartor.core.contracts import Evaluator, Problem, Strategy
from sartor.core.errors import BudgetSpentError, ConfigError, StateError
from sartor.core.records import Trial
from sartor.run.journal import LAG, Contents, FileJournal, read_contents
from sartor.run.lab import JournaledLab, Progress
from sartor.run.pool import Pool
from sartor.run.scalars import Scalars

CHECKPOINT = "state.safetensors"
"""Its name in the folder of a search."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a search stops although its strategy would go on; None = never.

    Attributes:
        trials: Trials in all, earlier sessions included.
        hours: Wall time of this session; the step under way is finished.
        trial_seconds: Time of one trial; a longer one is a failed trial.

    Raises:
        ConfigError: A limit is negative, or no time at all for a trial.
    """

    trials: int | None = None
    hours: float | None = None
    trial_seconds: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("trials", self.trials), ("hours", self.hours)):
            if value is not None and not value >= 0:
                raise ConfigError(f"limits.{name} must not be negative, got {value}; leave it out for no limit")
        if self.trial_seconds is not None and not self.trial_seconds > 0:
            raise ConfigError(f"limits.trial_seconds must be positive, got {self.trial_seconds}")


def run(
    strategy: Strategy,
    problem: Problem,
    evaluator: Evaluator,
    *,
    folder: Path,
    seed: int,
    limits: Limits = Limits(),
    progress: Progress | None = None,
    on_trial: Callable[[Trial], None] | None = None,
    on_step: Callable[[int], None] | None = None,
    pool: Pool | None = None,
) -> bool:
    """Run, or go on with, the search kept in `folder`.

    A killed search goes on exactly: see above, and sartor.run.lab. Reaching a limit does not move the checkpoint, so a
    larger limit goes on exactly, too.

    Args:
        strategy: As its constructor made it: a limit may stop it in the middle of a step, so make a new one to go on.
        problem: What the strategy searches.
        evaluator: Runs the trials.
        folder: Holds `journal.jsonl`, `state.safetensors` and `artifacts/`; the caller sees to it that nobody else uses
            it.
        seed: Of the run; trial `i` gets the stream `("trial", i)`.
        limits: When to stop early.
        progress: Told how much of a step is done.
        on_trial: Called after each trial that was run; not for those that an earlier session ran.
        on_step: Called with the number of each step that is done.
        pool: Who runs the trials instead of `evaluator` here; trials and journal are the same.

    Returns:
        Whether the strategy has finished (False: a limit was reached).

    Raises:
        StateError: The checkpoint and the journal do not belong together, or cannot be written.
    """
    _make(folder)
    journal = FileJournal(folder / "journal.jsonl")
    contents = read_contents(journal)
    step, trials, finished = _resume(strategy, folder / CHECKPOINT, journal, contents)
    lab = JournaledLab(
        problem,
        evaluator,
        journal,
        seed,
        max_trials=limits.trials,
        trial_seconds=limits.trial_seconds,
        resume_at=trials,
        artifacts=folder / "artifacts",
        progress=progress,
        on_trial=on_trial,
        contents=contents,
        pool=pool,
    )
    ends = None if limits.hours is None else time.monotonic() + 3600 * limits.hours
    lab.forget(strategy.parents())  # a kill may have come between the last checkpoint and this
    with Scalars(folder) as scalars, _Checkpoints(folder / CHECKPOINT, journal, lab) as checkpoints:
        while not finished and (ends is None or time.monotonic() < ends):
            try:
                finished = not strategy.step(lab)
            except BudgetSpentError:
                return False
            step += 1
            logs = [{"step": step, **scalar} for scalar in lab.pending]
            lab.pending = []
            record = {"strategy": strategy.state_dict(), "finished": finished, "step": step, "logs": logs}
            _journal_logs(journal, logs)
            checkpoints.take(record, strategy.parents())
            scalars.write(step, logs)
            if on_step is not None:
                on_step(step)
    return finished


class _Checkpoints:
    """Keeps the state after the last step, and writes it now and then, and at the end.

    What a step has journaled is on disk before the checkpoint that counts it, and weights are removed after it.
    """

    def __init__(self, path: Path, journal: FileJournal, lab: JournaledLab) -> None:
        self.path, self.journal, self.lab = path, journal, lab
        self._waiting: tuple[dict[str, Any], Collection[int]] | None = None
        self._written = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.write()

    def take(self, record: dict[str, Any], parents: Collection[int]) -> None:
        """The state after a step."""
        self._waiting = {**record, "trials": self.lab.count, "digest": self.lab.digest.hex()}, tuple(parents)
        if time.monotonic() - self._written >= LAG:
            self.write()

    def write(self) -> None:
        """Write what waits, if anything does."""
        if self._waiting is None:
            return
        record, parents = self._waiting
        self.journal.sync()
        state.save(self.path, record)
        self._waiting, self._written = None, time.monotonic()
        self.lab.forget(parents, record["trials"])


def restore(strategy: Strategy, folder: Path) -> bool:
    """Put the last checkpoint of `folder` into `strategy` without running anything; False if there is none.

    Raises:
        StateError: The checkpoint is of another strategy or run, or none of sartor.
    """
    path, journal = folder / CHECKPOINT, FileJournal(folder / "journal.jsonl")
    if not state.present(path):
        return False
    _load(strategy, path, journal, read_contents(journal))
    return True


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(f"cannot write to {folder}: {error}; free some space, or name another folder") from error


def _load(strategy: Strategy, path: Path, journal: FileJournal, contents: Contents) -> dict[str, Any]:
    """Put the checkpoint, and the trials that it knows, into the strategy."""
    saved = state.load(path)
    try:
        known, digest, own = saved["trials"], saved["digest"], saved["strategy"]
        step, finished, logs = saved["step"], saved["finished"], saved["logs"]
    except (KeyError, TypeError) as error:
        raise StateError(f"{path} is no checkpoint of a search; remove it to replay what the journal holds") from error
    if len(contents.trials) < known:
        raise StateError(
            f"{path} knows {known} trials, {journal.path} only {len(contents.trials)}; "
            "restore the journal, or remove the checkpoint to replay what is there"
        )
    if contents.digest(known).hex() != digest:
        raise StateError(
            f"the first {known} trials in {journal.path} are not those that {path} was made from; "
            "restore the one that was changed, or remove the checkpoint to replay what is there"
        )
    strategy.load_state_dict(own)
    strategy.recall(contents.trials[:known])
    return {"step": step, "trials": known, "finished": finished, "logs": logs}


def _resume(strategy: Strategy, path: Path, journal: FileJournal, contents: Contents) -> tuple[int, int, bool]:
    """Steps and trials that are done, and whether all are."""
    if not state.present(path):
        _rewind_logs(journal, contents, 0)
        return 0, 0, False
    saved = _load(strategy, path, journal, contents)
    _rewind_logs(journal, contents, saved["step"])
    written = sum(log["step"] == saved["step"] for log in contents.logs)
    _journal_logs(journal, saved["logs"][written:])
    return saved["step"], saved["trials"], saved["finished"]


def _rewind_logs(journal: FileJournal, contents: Contents, step: int) -> None:
    """Later steps than the checkpoint's are done, and logged, again."""
    if any(log["step"] > step for log in contents.logs):
        journal.append({"kind": "rewind_logs", "to": step})


def _journal_logs(journal: FileJournal, logs: list[dict[str, float]]) -> None:
    for log in logs:
        journal.append({"kind": "log", **log}, soon=True)

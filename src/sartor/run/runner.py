"""The one loop of sartor: step, checkpoint, stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sartor.core import state
from sartor.core.contracts import Evaluator, Problem, Strategy
from sartor.core.errors import BudgetSpentError, ConfigError, StateError
from sartor.core.records import Trial
from sartor.run.journal import FileJournal, read_logs, read_trials
from sartor.run.lab import JournaledLab, Progress
from sartor.run.scalars import Scalars


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
) -> bool:
    """Run, or go on with, the search kept in `folder`.

    A killed search goes on exactly: see sartor.run.lab. Reaching a limit does not move the checkpoint, so a larger
    limit goes on exactly, too.

    Args:
        strategy: As its constructor made it: a limit may stop it in the middle of a step, so make a new one to go on.
        problem: What the strategy searches.
        evaluator: Runs the trials.
        folder: Holds `journal.jsonl`, `state.pt` and `artifacts/`; the caller sees to it that nobody else uses it.
        seed: Of the run; trial `i` gets the stream `("trial", i)`.
        limits: When to stop early.
        progress: Told how much of a step is done.
        on_trial: Called after each trial that was run; not for those that an earlier session ran.
        on_step: Called with the number of each step that is checkpointed.

    Returns:
        Whether the strategy has finished (False: a limit was reached).

    Raises:
        StateError: The checkpoint and the journal do not belong together, or cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, journal = folder / "state.pt", FileJournal(folder / "journal.jsonl")
    step, trials, finished = _resume(strategy, path, journal)
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
    )
    ends = None if limits.hours is None else time.monotonic() + 3600 * limits.hours
    lab.forget(strategy.parents())  # a kill may have come between the last checkpoint and this
    with Scalars(folder) as scalars:
        while not finished and (ends is None or time.monotonic() < ends):
            try:
                finished = not strategy.step(lab)
            except BudgetSpentError:
                return False
            step += 1
            logs = [{"step": step, **scalar} for scalar in lab.pending]
            lab.pending = []
            # The logs go with the checkpoint first: a kill before they reach the journal does not lose them.
            record = {"strategy": strategy.state_dict(), "trials": lab.count, "finished": finished}
            state.save(path, {**record, "step": step, "logs": logs})
            _journal_logs(journal, logs)
            lab.forget(strategy.parents())
            scalars.write(step, logs)
            if on_step is not None:
                on_step(step)
    return finished


def restore(strategy: Strategy, folder: Path) -> bool:
    """Put the last checkpoint of `folder` into `strategy` without running anything; False if there is none.

    Raises:
        StateError: The checkpoint is of another strategy, or none of sartor.
    """
    path = folder / "state.pt"
    if path.exists():
        strategy.load_state_dict(state.load(path)["strategy"])
    return path.exists()


def _resume(strategy: Strategy, path: Path, journal: FileJournal) -> tuple[int, int, bool]:
    if not path.exists():
        _rewind_logs(journal, 0)
        return 0, 0, False
    saved = state.load(path)
    have = len(read_trials(journal))
    if have < saved["trials"]:
        raise StateError(
            f"{path} knows {saved['trials']} trials, {journal.path} only {have}; "
            "restore the journal, or remove the checkpoint to replay what is there"
        )
    strategy.load_state_dict(saved["strategy"])
    _rewind_logs(journal, saved["step"])
    written = sum(log["step"] == saved["step"] for log in read_logs(journal))
    _journal_logs(journal, saved["logs"][written:])
    return saved["step"], saved["trials"], saved["finished"]


def _rewind_logs(journal: FileJournal, step: int) -> None:
    """Later steps than the checkpoint's (it was removed, or is an older copy) are done, and logged, again."""
    if any(log["step"] > step for log in read_logs(journal)):
        journal.append({"kind": "rewind_logs", "to": step})


def _journal_logs(journal: FileJournal, logs: list[dict[str, float]]) -> None:
    for log in logs:
        journal.append({"kind": "log", **log})

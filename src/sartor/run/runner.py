"""The one loop of sartor: step, checkpoint, stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sartor.core import state
from sartor.core.contracts import Evaluator, Problem, Strategy
from sartor.core.errors import BudgetSpentError
from sartor.core.records import Trial
from sartor.run.journal import FileJournal, read_logs
from sartor.run.lab import JournaledLab, Progress
from sartor.run.scalars import Scalars


@dataclass(frozen=True)
class Limits:
    """When a search stops although its strategy would go on; None = never.

    Attributes:
        trials: Trials in all, earlier sessions included.
        hours: Wall time of this session; the step under way is finished.
        trial_seconds: Time of one trial; a longer one is a failed trial.
    """

    trials: int | None = None
    hours: float | None = None
    trial_seconds: float | None = None


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

    Returns:
        Whether the strategy has finished (False: a limit was reached).
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
            scalars.write(step, logs)
            if on_step is not None:
                on_step(step)
    return finished


def _resume(strategy: Strategy, path: Path, journal: FileJournal) -> tuple[int, int, bool]:
    if not path.exists():
        return 0, 0, False
    saved = state.load(path)
    strategy.load_state_dict(saved["strategy"])
    if saved["logs"] and not any(log["step"] == saved["step"] for log in read_logs(journal)):
        _journal_logs(journal, saved["logs"])
    return saved["step"], saved["trials"], saved["finished"]


def _journal_logs(journal: FileJournal, logs: list[dict[str, float]]) -> None:
    for log in logs:
        journal.append({"kind": "log", **log})

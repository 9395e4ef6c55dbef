"""The lab: meters, journals and (after a crash) replays what a strategy does."""

from __future__ import annotations

import math
import signal
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from sartor.core.abilities import Heritable
from sartor.core.contracts import Evaluator, Problem
from sartor.core.errors import (
    BudgetSpentError,
    CapabilityError,
    ConfigError,
    DataError,
    DivergedError,
    LeakError,
    MissingExtraError,
    StateError,
    TrialTimeoutError,
)
from sartor.core.records import Proposal, Trial
from sartor.core.rng import derive
from sartor.run.journal import Contents, Journal, chained, read_contents

FATAL = (CapabilityError, ConfigError, DataError, LeakError, MissingExtraError, StateError)
"""Mistakes in the set-up and full disks: every other trial would fail the same way, so the search stops."""

MAX_STARTS = 3
"""A trial that took the whole process down this often (out of memory, say) is recorded as failed."""

WEIGHTS = "weights"
"""The folder among the artifacts with one file of weights per trial that may become a parent."""

Progress = Callable[[float, float, str], None]


class JournaledLab:
    """Evaluates proposals one by one, in order.

    `resume_at` is the number of trials that the checkpoint already knows. Journaled trials
    after that were finished but not checkpointed: they are handed back instead of being run
    again, as long as the strategy proposes the same things; at the first difference the rest
    is dropped (by a `rewind` record; the journal itself is never rewritten). `contents` is what
    the journal holds, for who has read it already.

    A start must survive the death of this process only, and a trial can be run again to the same
    result: both may reach the disk a little later (`sartor.run.journal.LAG`).
    """

    def __init__(
        self,
        problem: Problem,
        evaluator: Evaluator,
        journal: Journal,
        seed: int,
        *,
        max_trials: int | None = None,
        trial_seconds: float | None = None,
        resume_at: int = 0,
        artifacts: Path | None = None,
        progress: Progress | None = None,
        on_trial: Callable[[Trial], None] | None = None,
        contents: Contents | None = None,
    ) -> None:
        contents = contents or read_contents(journal)
        self.digest = contents.digest(resume_at)
        """Of all trials so far."""
        self.problem, self.evaluator, self.journal = problem, evaluator, journal
        self.seed, self.max_trials, self.trial_seconds = seed, max_trials, trial_seconds
        self.artifacts, self._progress, self._on_trial = artifacts, progress, on_trial
        self.count, self._replay = resume_at, deque(contents.trials[resume_at:])
        self._starts = dict(contents.starts)
        self.pending: list[dict[str, Any]] = []

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Trial]:
        """Trials in the order of `proposals`; failures are data.

        Raises:
            BudgetSpentError: All trials that the run may make are made.
        """
        return [self._one(p) for p in proposals]

    def log(self, **scalars: float) -> None:
        """Hold scalars back until the step is checkpointed: what is journaled is never done twice.

        Raises:
            ConfigError: A scalar has a name that the journal needs itself.
        """
        if taken := {"kind", "step"} & scalars.keys():
            raise ConfigError(f"a scalar may not be called {min(taken)!r}, which the journal needs; rename it")
        self.pending.append({name: float(value) for name, value in scalars.items()})

    def artifact(self, name: str) -> Path:
        """The path of a file that outlives the run."""
        if self.artifacts is None:
            raise CapabilityError(f"no run folder to keep {name!r} in; give the run a folder")
        self.artifacts.mkdir(parents=True, exist_ok=True)
        return self.artifacts / name

    def progress(self, done: float, total: float, label: str = "") -> None:
        """Hand on to whoever shows it."""
        if self._progress is not None:
            self._progress(done, total, label)

    def forget(self, parents: Collection[int], count: int | None = None) -> None:
        """Remove the weights of the first `count` trials (all so far), but not those of `parents`.

        Call it once a checkpoint that knows them is written.
        """
        count = self.count if count is None else count
        for path in (self.artifacts / WEIGHTS).glob("*.safetensors") if self.artifacts is not None else ():
            if int(path.stem) < count and int(path.stem) not in parents:
                path.unlink()

    def _one(self, proposal: Proposal) -> Trial:
        # Plain numbers, as the journal returns them: numpy's are neither JSON nor allowed in a checkpoint.
        proposal = replace(
            proposal,
            arch=tuple(map(int, proposal.arch)),
            fidelity=float(proposal.fidelity),
            parent=None if proposal.parent is None else int(proposal.parent),
        )
        if self.max_trials is not None and self.count >= self.max_trials:
            raise BudgetSpentError(f"all {self.max_trials} trials are used; raise limits.trials to go on")
        trial = self._replayed(proposal)
        if trial is None:
            trial = self._run(proposal)
            if self._on_trial is not None:
                self._on_trial(trial)
        self.count, self.digest = self.count + 1, chained(self.digest, [trial])
        return trial

    def _replayed(self, proposal: Proposal) -> Trial | None:
        if not self._replay:
            return None
        trial = self._replay.popleft()
        if (trial.arch, trial.fidelity, trial.parent) == (proposal.arch, proposal.fidelity, proposal.parent):
            return trial
        self._replay.clear()
        self._starts.clear()
        self.journal.append({"kind": "rewind", "to": self.count})
        return None

    def _run(self, proposal: Proposal) -> Trial:
        metrics = {m: float(c([proposal.arch])[0]) for m, c in (self.problem.costs or {}).items()}
        error = None
        if self._starts.get(self.count, 0) >= MAX_STARTS:
            error = f"the process died {MAX_STARTS} times in this trial (out of memory?)"
        else:
            self.journal.append({"kind": "start", "index": self.count}, soon=True)
            try:
                with _time_limit(self.trial_seconds):
                    metrics |= _finite(self._metrics(proposal, derive(self.seed, "trial", self.count)))
            except Exception as exc:
                if isinstance(exc, FATAL):
                    self._interrupted()
                    raise
                error = f"{type(exc).__name__}: {exc}"  # one bad network must not end the search
            except BaseException:  # Ctrl-C
                self._interrupted()
                raise
        trial = Trial(self.count, proposal.arch, proposal.fidelity, metrics, error, proposal.parent)
        self.journal.append({"kind": "trial", **vars(trial)}, soon=True)
        return trial

    def _metrics(self, proposal: Proposal, seed: int) -> Mapping[str, float]:
        judge, parent = self.evaluator, proposal.parent
        if not isinstance(judge, Heritable) or (self.artifacts is None and parent is None):
            return judge(proposal, seed)
        source = None if parent is None else self._weights(parent)
        if source is not None and not source.exists():
            raise StateError(
                f"the weights of trial {parent}, the parent of trial {self.count}, are not at {source}; "
                "Strategy.parents() must name a trial as long as it may be one, and a failed trial has none"
            )
        return judge.inherit(proposal, seed, parent=source, keep=self._weights(self.count))

    def _weights(self, index: int) -> Path:
        return self.artifact(f"{WEIGHTS}/{index:03}.safetensors")

    def _interrupted(self) -> None:
        """The trial ended early, but it did not take the process down."""
        self.journal.append({"kind": "interrupt", "index": self.count})


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    plain = {name: float(value) for name, value in metrics.items()}
    for name, value in plain.items():
        if not math.isfinite(value):
            raise DivergedError(f"metric {name!r} is {value}")
    return plain


@contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Interrupt the block after `seconds` (main thread on Unix; elsewhere there is no limit)."""
    usable = seconds and hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not usable or seconds is None:
        yield
        return

    def ring(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        raise TrialTimeoutError(f"over its time limit of {seconds:g} s (limits.trial_seconds)")

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)

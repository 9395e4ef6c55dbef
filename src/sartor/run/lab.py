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
    DivergedError,
    StateError,
    TrialTimeoutError,
)
from sartor.core.records import Proposal, Trial
from sartor.core.rng import derive
from sartor.run.journal import Contents, Journal, chained, read_contents
from sartor.run.pool import FATAL, LOST, MAX_STARTS, Pool, over_time

WEIGHTS = "weights"
"""The folder among the artifacts with one file of weights per trial that may become a parent."""

Progress = Callable[[float, float, str], None]


class JournaledLab:
    """Evaluates proposals one by one, in order; with a pool several at a time, and what it journals is the same.

    `resume_at` is the number of trials that the checkpoint already knows. Journaled trials
    after that were finished but not checkpointed: they are handed back instead of being run
    again, as long as the strategy proposes the same things; at the first difference the rest
    is dropped (by a `rewind` record; the journal itself is never rewritten). `contents` is what
    the journal holds, for who has read it already.

    With a pool the start of a trial is journaled with its end, when its turn has come: what is under way, and what has
    come early, the pool keeps itself, deaths included (sartor.run.pool).

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
        pool: Pool | None = None,
    ) -> None:
        contents = contents or read_contents(journal)
        self.digest = contents.digest(resume_at)
        """Of all trials so far."""
        self.problem, self.evaluator, self.journal = problem, evaluator, journal
        self.seed, self.max_trials, self.trial_seconds = seed, max_trials, trial_seconds
        self.artifacts, self._progress, self._on_trial = artifacts, progress, on_trial
        self.count, self._replay = resume_at, deque(contents.trials[resume_at:])
        self._starts = dict(contents.starts)
        self._pool, self._expected = pool, resume_at
        self.pending: list[dict[str, Any]] = []

    def evaluate(self, proposals: Sequence[Proposal], ahead: Sequence[Proposal] = ()) -> list[Trial]:
        """Trials in the order of `proposals`; failures are data.

        Args:
            proposals: What to evaluate.
            ahead: What will be asked for next, for those who can begin early.

        Raises:
            BudgetSpentError: All trials that the run may make are made.
        """
        plain = [_plain(p) for p in (*proposals, *ahead)]
        return [self._one(p, plain[i:]) for i, p in enumerate(plain[: len(proposals)])]

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
        waiting = [] if self._pool is None else [job["parent"] for job in self._pool.expected.values()]
        parents = {*parents, *waiting}
        for path in (self.artifacts / WEIGHTS).glob("*.safetensors") if self.artifacts is not None else ():
            if int(path.stem) < count and int(path.stem) not in parents:
                path.unlink()

    def _one(self, proposal: Proposal, following: Sequence[Proposal]) -> Trial:
        if self.max_trials is not None and self.count >= self.max_trials:
            raise BudgetSpentError(f"all {self.max_trials} trials are used; raise limits.trials to go on")
        trial = self._replayed(proposal)
        if trial is None:
            trial = self._run(proposal) if self._pool is None else self._fetch(proposal, following, self._pool)
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
        self._expected = self.count
        self.journal.append({"kind": "rewind", "to": self.count})
        return None

    def _run(self, proposal: Proposal) -> Trial:
        metrics, error = self._costs(proposal), None
        if self._starts.get(self.count, 0) >= MAX_STARTS:
            error = LOST
        else:
            self.journal.append({"kind": "start", "index": self.count}, soon=True)
            try:
                with _time_limit(self.trial_seconds):
                    seed = derive(self.seed, "trial", self.count)
                    found = judged(self.evaluator, proposal, seed, index=self.count, artifacts=self.artifacts)
                    metrics |= _finite(found)
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

    def _fetch(self, proposal: Proposal, following: Sequence[Proposal], pool: Pool) -> Trial:
        """The trial, from the pool, which is told what comes after it."""
        first = max(self._expected, self.count)
        last = self.count + len(following) if self.max_trials is None else self.max_trials
        jobs = {
            index: self._job(index, p) for index, p in enumerate(following[first - self.count :], first) if index < last
        }
        pool.expect(jobs)
        self._expected = first + len(jobs)
        outcome = pool.take(self.count)
        metrics, error = self._costs(proposal), outcome.text
        if error is None:
            try:
                metrics |= _finite(outcome.value)
            except DivergedError as exc:
                error = f"{type(exc).__name__}: {exc}"
        trial = Trial(self.count, proposal.arch, proposal.fidelity, metrics, error, proposal.parent)
        self.journal.extend([{"kind": "start", "index": self.count}, {"kind": "trial", **vars(trial)}], soon=True)
        return trial

    def _job(self, index: int, proposal: Proposal) -> dict[str, Any]:
        """A trial as `judged_job` takes it."""
        return {
            "index": index,
            "arch": list(proposal.arch),
            "fidelity": proposal.fidelity,
            "parent": proposal.parent,
            "seed": derive(self.seed, "trial", index),
        }

    def _costs(self, proposal: Proposal) -> dict[str, float]:
        return {m: float(c([proposal.arch])[0]) for m, c in (self.problem.costs or {}).items()}

    def _interrupted(self) -> None:
        """The trial ended early, but it did not take the process down."""
        self.journal.append({"kind": "interrupt", "index": self.count})


def judged(
    evaluator: Evaluator, proposal: Proposal, seed: int, *, index: int, artifacts: Path | None
) -> Mapping[str, float]:
    """The metrics of a trial, whose weights are handed on among the artifacts where the evaluator can.

    Raises:
        StateError: The weights of its parent are not there.
    """
    parent = proposal.parent
    if not isinstance(evaluator, Heritable) or (artifacts is None and parent is None):
        return evaluator(proposal, seed)
    if artifacts is None:
        raise CapabilityError(f"no run folder to keep the weights of trial {parent} in; give the run a folder")
    source = None if parent is None else _weights(artifacts, parent)
    if source is not None and not source.exists():
        raise StateError(
            f"the weights of trial {parent}, the parent of trial {index}, are not at {source}; "
            "Strategy.parents() must name a trial as long as it may be one, and a failed trial has none"
        )
    keep = _weights(artifacts, index)
    keep.parent.mkdir(parents=True, exist_ok=True)
    return evaluator.inherit(proposal, seed, parent=source, keep=keep)


def judged_job(evaluator: Evaluator, job: Mapping[str, Any], artifacts: Path) -> dict[str, float]:
    """`judged` for a worker: the job is plain data, and so are the metrics; who asked looks whether they are finite."""
    proposal = Proposal(tuple(job["arch"]), job["fidelity"], job["parent"])
    found = judged(evaluator, proposal, job["seed"], index=job["index"], artifacts=artifacts)
    return {name: float(value) for name, value in found.items()}


def _weights(artifacts: Path, index: int) -> Path:
    return artifacts / WEIGHTS / f"{index:03}.safetensors"


def _plain(proposal: Proposal) -> Proposal:
    """With plain numbers, as the journal returns them: numpy's are neither JSON nor allowed in a checkpoint."""
    return replace(
        proposal,
        arch=tuple(map(int, proposal.arch)),
        fidelity=float(proposal.fidelity),
        parent=None if proposal.parent is None else int(proposal.parent),
    )


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
        raise TrialTimeoutError(over_time(seconds))

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)

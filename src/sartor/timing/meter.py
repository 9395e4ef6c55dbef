"""The one procedure: open fresh sessions of networks, run them in interleaved rounds, take ratios to a reference.

Nobody else opens sessions to time them. What is timed is named by `Subject`, how well by `Effort`; the answer is
`Timings`, from which come `Estimate`s.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from sartor.core.contracts import Session, Target
from sartor.core.errors import ConfigError, TargetError
from sartor.core.records import Estimate
from sartor.core.rng import derive
from sartor.core.trees import Inputs
from sartor.timing import estimate, inputs, quiet
from sartor.timing.processes import Source, StrangerError, address, ask
from sartor.timing.rounds import SAMPLE_SECONDS, WARMUP, Call, OnRound, Rounds, interleave

REFERENCES = 2
"""Sessions that the reference has at least: all ratios rest on it."""


@dataclass(frozen=True)
class Subject:
    """A network that can be timed.

    Attributes:
        open: Makes a fresh session of it.
        inputs: What enters it.
        source: How another process opens it; None where only this one can.
    """

    open: Callable[[], Session]
    inputs: Inputs
    source: Source | None = None

    @classmethod
    def of_file(cls, target: Target, artifact: Path, enters: Inputs) -> Subject:
        """A file that the target loads."""
        found = address(target)
        source = None if found is None else Source(found, artifact.absolute())
        return cls(lambda: target.load(artifact), enters, source)

    @classmethod
    def prepared(cls, target: Target, module: nn.Module, enters: Inputs, folder: Path) -> Subject:
        """A network that is prepared once, in a folder of its own, and loaded for every session.

        Where the target leaves no file, it is prepared for every session.
        """
        folder.mkdir(parents=True, exist_ok=True)
        artifact = target.prepare(module, enters, folder).artifact
        if artifact is None:
            return cls(lambda: target.prepare(module, enters, folder), enters)
        return cls.of_file(target, artifact, enters)


@dataclass(frozen=True)
class Effort:
    """How well to time.

    Attributes:
        rounds: Interleaved rounds; several processes share them.
        sessions: Fresh sessions of each network, in each process.
        processes: 1 times in this process. More are fresh ones, one after another: then the interval covers how much
            processes differ.
        warmup: Upper bound in seconds on warming up each session.
        sample_seconds: Duration to aim for of a sample.
    """

    rounds: int = 40
    sessions: int = 5
    processes: int = 1
    warmup: float = WARMUP
    sample_seconds: float = SAMPLE_SECONDS

    def __post_init__(self) -> None:
        for name in ("rounds", "sessions", "processes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}; give a larger number")

    @classmethod
    def brief(cls, rounds: int) -> Effort:
        """One session each, short samples: for hundreds of networks, whose errors average out."""
        return cls(rounds, sessions=1, warmup=0.05, sample_seconds=SAMPLE_SECONDS / 2)

    def doubled(self) -> Effort:
        """A longer look, as large as this one again: more processes, or more sessions where there is only one."""
        if self.processes > 1:
            return replace(self, rounds=2 * self.rounds, processes=2 * self.processes)
        return replace(self, rounds=2 * self.rounds, sessions=2 * self.sessions)


@dataclass(frozen=True)
class Timings:
    """What was timed together.

    Attributes:
        runs: The rounds of each process.
        reference: The name of what ratios are taken to; None if there is none.
        note: Why everything was timed in this process although others were asked for; "" otherwise.
    """

    runs: tuple[Rounds, ...]
    reference: str | None = None
    note: str = ""

    def ratio(self, name: str) -> Estimate:
        """The latency of a network as a fraction of the reference's."""
        if self.reference is None:
            raise ConfigError(f"{name!r} was timed without a reference; name one to take ratios")
        return estimate.ratio(self.runs, name, self.reference)

    def milliseconds(self, name: str) -> Estimate:
        """Of one call, on this machine as it is."""
        return estimate.absolute(self.runs, name)

    def latencies(self, anchor: Estimate | None = None) -> dict[str, Estimate]:
        """Milliseconds of every network but the reference: its ratio to the reference times the anchor's value.

        Args:
            anchor: Milliseconds of the reference, where they are fixed; None takes those of these rounds. It is in the
                result, as it is.
        """
        if self.reference is None:
            raise ConfigError("latencies need a reference; name one when timing")
        anchor = anchor or self.milliseconds(self.reference)
        names = [name for name in dict.fromkeys(self.runs[0].columns) if name != self.reference]
        return {self.reference: anchor, **{name: self.ratio(name).scaled(anchor.value) for name in names}}


def time_together(
    subjects: Mapping[str, Subject],
    effort: Effort | None = None,
    *,
    reference: str | None = None,
    seed: int = 0,
    on_round: OnRound | None = None,
) -> Timings:
    """Time networks in the same rounds, each from fresh sessions: also the reference, however often it was timed.

    Nothing else of sartor is timed on this machine meanwhile, and no worker trains here (sartor.timing.quiet).

    Sessions of the reference that had been opened an hour earlier in the same process were 3 % faster than new ones.

    Args:
        subjects: What is timed, by name.
        effort: How well.
        reference: The subject that ratios are taken to.
        seed: Of the orders.
        on_round: Progress, over all processes.

    Raises:
        ConfigError: Nothing to time, or no such reference.
        TargetError: A session cannot be opened or run, here or in another process.
    """
    effort = effort or Effort()
    if not subjects or (reference is not None and reference not in subjects):
        raise ConfigError(
            f"cannot time {sorted(subjects)} against {reference!r}; name subjects, the reference among them"
        )
    with quiet.measuring():
        return _timed(subjects, effort, reference, seed, on_round)


def _timed(
    subjects: Mapping[str, Subject], effort: Effort, reference: str | None, seed: int, on_round: OnRound | None
) -> Timings:
    counts = {name: max(effort.sessions, REFERENCES if name == reference else 1) for name in subjects}
    note = _bound_to_this_process(subjects) if effort.processes > 1 else ""
    if effort.processes > 1 and not note:
        try:
            return Timings(_elsewhere(subjects, counts, effort, seed, on_round), reference)
        except StrangerError as error:
            note = f"another process cannot make the target again ({error})"
    timed = interleave(_opened(subjects, counts), on_round=on_round, **_how(effort, effort.rounds, seed))
    return Timings((timed,), reference, note and f"timed in this process alone: {note}")


def _bound_to_this_process(subjects: Mapping[str, Subject]) -> str:
    """Why another process cannot open them; "" if it can."""
    bound = [name for name, subject in subjects.items() if subject.source is None]
    return f"{', '.join(bound)} cannot be opened from a file by the name of a target" if bound else ""


def _opened(subjects: Mapping[str, Subject], counts: Mapping[str, int]) -> dict[str, list[Call]]:
    return {
        name: [subject.open().bind(subject.inputs) for _ in range(counts[name])] for name, subject in subjects.items()
    }


def _how(effort: Effort, rounds: int, seed: int) -> dict[str, Any]:
    """Settings of `interleave`."""
    return {"rounds": rounds, "seed": seed, "warmup": effort.warmup, "sample_seconds": effort.sample_seconds}


def _elsewhere(
    subjects: Mapping[str, Subject], counts: Mapping[str, int], effort: Effort, seed: int, on_round: OnRound | None
) -> tuple[Rounds, ...]:
    """The rounds of fresh processes, one after another: two at a time would disturb each other."""
    rounds = -(-effort.rounds // effort.processes)
    with tempfile.TemporaryDirectory(prefix="sartor-") as folder:
        told = _told(subjects, counts, Path(folder))
        found = []
        for number in range(effort.processes):
            how = _how(effort, rounds, derive(seed, "process", number) % 2**31)
            found.append(_one({"task": "time", "subjects": told, "how": how}, number, effort.processes, on_round))
    return tuple(found)


def _told(subjects: Mapping[str, Subject], counts: Mapping[str, int], folder: Path) -> list[dict[str, Any]]:
    """What a worker is told of each subject; inputs that several share are one file."""
    files: dict[int, Path] = {}
    found = []
    for name, subject in subjects.items():
        assert subject.source is not None
        if id(subject.inputs) not in files:
            files[id(subject.inputs)] = folder / f"{len(files)}.safetensors"
            inputs.write(subject.inputs, files[id(subject.inputs)])
        file = str(files[id(subject.inputs)])
        found.append({"name": name, **subject.source.as_dict(), "inputs": file, "sessions": counts[name]})
    return found


def _one(job: dict[str, Any], number: int, processes: int, on_round: OnRound | None) -> Rounds:
    for answer in ask(job):
        if "round" in answer and on_round is not None:
            done, total = answer["round"]
            on_round(number * total + done, processes * total)
        if "rounds" in answer:
            return Rounds.of(answer["rounds"])
    raise TargetError("a process that was to time networks ended without an answer; try it again")

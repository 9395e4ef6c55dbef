"""Latencies of networks of a space on the target, as ratios to the reference network timed in the same rounds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from sartor import archs
from sartor.core.abilities import Operated, Templated
from sartor.core.contracts import Session
from sartor.core.records import Arch, Estimate
from sartor.exporting import with_sane_weights
from sartor.jobs.fit.assemble import Parts
from sartor.timing import estimate
from sartor.timing.meter import Effort, Subject, Timings, time_together
from sartor.timing.rounds import OnRound, Rounds


class Meter:
    """Measures networks of the space on the target.

    The weights do not matter for the time, so untrained networks stand for trained ones; what the final verdict rests
    on is measured again from the exported files (sartor.jobs.fit.verify).

    Attributes:
        session: Gives a freshly prepared network of an arch.
        anchor: Milliseconds of the reference, fixed once per run: every other latency is a ratio times this.
    """

    def __init__(self, parts: Parts, *, sessions: int = 3) -> None:
        self._parts, self._sessions = parts, sessions
        self._folder = tempfile.TemporaryDirectory(prefix="sartor-")
        self.session = self._maker()
        self.anchor: Estimate | None = None

    def close(self) -> None:
        """Remove the temporary files."""
        self._folder.cleanup()

    def set_anchor(self, *, rounds: int = 60, on_round: OnRound | None = None) -> Estimate:
        """Measure the reference in milliseconds."""
        timed = self._timed({}, Effort(rounds, self._sessions), on_round=on_round)
        self.anchor = timed.milliseconds("reference")
        return self.anchor

    def compare(
        self, networks: Mapping[str, Arch], *, rounds: int, on_round: OnRound | None = None
    ) -> dict[str, Estimate]:
        """Several networks in the same rounds, each from fresh sessions; milliseconds by name.

        What is chosen by them is judged by other processes: the intervals admit that those find something else.
        """
        assert self.anchor is not None, "set_anchor comes first"
        found = self._timed(networks, Effort(rounds, self._sessions), on_round=on_round).latencies(self.anchor)
        return {name: estimate.for_others(found[name]) for name in networks}

    def visit(self, networks: Sequence[Arch], *, rounds: int, seed: int, on_round: OnRound | None = None) -> Rounds:
        """Many networks in a few rounds, briefly, each from one fresh session: for the latency model."""
        subjects = {str(i): self._subject(arch) for i, arch in enumerate(networks)}
        return time_together(subjects, Effort.brief(rounds), seed=seed, on_round=on_round).runs[0]

    def _timed(self, networks: Mapping[str, Arch], effort: Effort, *, on_round: OnRound | None) -> Timings:
        every = {"reference": self._parts.space.reference, **networks}
        subjects = {name: self._subject(arch) for name, arch in every.items()}
        return time_together(subjects, effort, reference="reference", on_round=on_round)

    def _subject(self, arch: Arch) -> Subject:
        return Subject(partial(self.session, arch), self._parts.task.example)

    def _maker(self) -> Callable[[Arch], Session]:
        parts, folder = self._parts, Path(self._folder.name)
        if isinstance(parts.space, Operated):
            return self._file_maker(folder)
        if isinstance(parts.target, Templated):
            prepare = parts.target.template(parts.build(archs.largest(parts.space), "template"), parts.task.example)
            return lambda arch: prepare(_shapes_only(parts, arch))
        return lambda arch: parts.target.prepare(parts.build(arch, "meter"), parts.task.example, folder)

    def _file_maker(self, folder: Path) -> Callable[[Arch], Session]:
        """Networks of operators share no graph that could be sliced: each is prepared once, to be loaded again."""
        parts, known = self._parts, dict[Arch, Subject]()
        example = parts.task.example

        def make(arch: Arch) -> Session:
            if arch not in known:
                module = with_sane_weights(parts.build(arch, "meter"), example)
                known[arch] = Subject.prepared(parts.target, module, example, folder / str(len(known)))
            return known[arch].open()

        return make


def _shapes_only(parts: Parts, arch: Arch) -> nn.Module:
    with torch.device("meta"):
        return parts.space.build(arch)

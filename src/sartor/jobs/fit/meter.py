"""Latencies on the target, always as a ratio to the reference network timed in the same rounds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from sartor import archs, measure
from sartor.core.abilities import Operated, Templated
from sartor.core.contracts import Session, Target
from sartor.core.records import Arch, Estimate
from sartor.exporting import with_sane_weights
from sartor.jobs.fit.assemble import Parts

OnRound = Callable[[int, int], None]

BRIEF_SECONDS = 0.0025
"""Duration to aim for of one sample of a network that is visited often."""


class Meter:
    """Measures networks of the space on the target.

    The weights do not matter for the time, so untrained networks stand for trained ones; what the final verdict rests
    on is measured again from the exported files (sartor.jobs.fit.verify).

    Attributes:
        anchor: Milliseconds of the reference, fixed once per run: every other latency is a ratio times this.
    """

    def __init__(self, parts: Parts, *, sessions: int = 3) -> None:
        self._parts, self._sessions_each = parts, sessions
        self._folder = tempfile.TemporaryDirectory(prefix="sartor-")
        self._make = self._maker()
        self.anchor: Estimate | None = None

    def close(self) -> None:
        """Remove the temporary files."""
        self._folder.cleanup()

    def session(self, arch: Arch) -> Callable[[], object]:
        """A call of a freshly prepared `arch` on the example input."""
        return self._make(arch).bind(self._parts.task.example)

    def set_anchor(self, *, rounds: int = 60, on_round: OnRound | None = None) -> Estimate:
        """Measure the reference in milliseconds."""
        timed = measure.interleave({"reference": self._references()}, rounds=rounds, on_round=on_round)
        self.anchor = measure.absolute(timed, "reference")
        return self.anchor

    def compare(
        self, networks: Mapping[str, Arch], *, rounds: int, on_round: OnRound | None = None
    ) -> dict[str, Estimate]:
        """Several networks in the same rounds, each from fresh sessions; milliseconds by name.

        So are the reference's: once, those opened an hour earlier in the same process were 3 % faster than new ones.
        """
        calls = {"reference": self._references()}
        calls |= {name: self._sessions(arch, self._sessions_each) for name, arch in networks.items()}
        timed = measure.interleave(calls, rounds=rounds, on_round=on_round)
        return {name: self._milliseconds(measure.ratio(timed, name, "reference")) for name in networks}

    def _references(self) -> Sequence[Callable[[], object]]:
        """At least two: all ratios rest on it."""
        return self._sessions(self._parts.space.reference, max(2, self._sessions_each))

    def _sessions(self, arch: Arch, count: int) -> Sequence[Callable[[], object]]:
        return [self.session(arch) for _ in range(count)]

    def visit(
        self, networks: Sequence[Arch], *, rounds: int, seed: int, on_round: OnRound | None = None
    ) -> measure.Rounds:
        """Many networks in a few rounds, briefly, each from one fresh session: for the latency model."""
        calls = {str(i): self.session(arch) for i, arch in enumerate(networks)}
        return measure.interleave(
            calls, rounds=rounds, seed=seed, warmup=0.05, sample_seconds=BRIEF_SECONDS, on_round=on_round
        )

    def _milliseconds(self, ratio: Estimate) -> Estimate:
        assert self.anchor is not None, "set_anchor comes first"
        return ratio.scaled(self.anchor.value)

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
        parts, known = self._parts, dict[Arch, Callable[[], Session]]()
        example = parts.task.example

        def make(arch: Arch) -> Session:
            if arch not in known:
                module = with_sane_weights(parts.build(arch, "meter"), example)
                known[arch] = opener(parts.target, module, example, folder / str(len(known)))
            return known[arch]()

        return make


def opener(target: Target, module: nn.Module, example: Tensor, folder: Path) -> Callable[[], Session]:
    """Fresh sessions of a network that is prepared once, in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    artifact = target.prepare(module, example, folder).artifact
    if artifact is None:
        return lambda: target.prepare(module, example, folder)
    return lambda: target.load(artifact)


def _shapes_only(parts: Parts, arch: Arch) -> nn.Module:
    with torch.device("meta"):
        return parts.space.build(arch)

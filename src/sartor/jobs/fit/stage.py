"""What every stage of a job works with, and how a stage is done once and never again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import nn

from sartor import archs, networks
from sartor.core.records import Arch, Estimate
from sartor.exporting.weights_file import load_own
from sartor.jobs.fit.assemble import Parts, analytic_costs
from sartor.run.folder import RunFolder
from sartor.run.ledger import Ledger
from sartor.run.progress import Display
from sartor.run.result import Entry
from sartor.run.schema import decode, encode

T = TypeVar("T")


@dataclass(frozen=True)
class Chosen:
    """A network that is to be trained and verified.

    Attributes:
        name: Of its files in `artifacts/`.
        arch: What it is.
    """

    name: str
    arch: Arch


@dataclass(frozen=True)
class Job:
    """The parts of a run, its folder, its ledger and its display."""

    parts: Parts
    folder: RunFolder
    ledger: Ledger
    display: Display

    def done(self, name: str, kind: type[T]) -> T | None:
        """The result of a stage, a dataclass of plain values; None if it is still to be done.

        Whoever does it writes `with job.stage(name, title): found = job.end(name, ...)`.
        """
        done = self.folder.stage_result(name)
        return None if done is None else decode(kind, done, f"{self.folder.path}: stage {name}")

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        """The block does a stage, which `end` ends.

        Args:
            name: Unique in the run; the ledger books it under the part before the first dot.
            title: For the user.
        """
        self.display.stage(title)
        self.folder.begin_stage(name)
        with self.ledger.stage(name.partition(".")[0]):
            yield

    def end(self, name: str, result: T) -> T:
        """Journal the result of the stage that is open, with what it cost: no kill can come between the two.

        Whatever the stage has written must be on disk; what only it needed may be removed after this.
        """
        own = self.ledger.journal is self.folder.journal  # a comparison has many folders and one ledger
        self.folder.end_stage(name, encode(result), self.ledger.due() if own else None)
        return result

    def bar(self, label: str, number: int = 0, of: int = 1) -> Callable[[float, float], None]:
        """A progress bar with this label, to be told (done, total) of all, or of one part `number` out of `of`."""
        if of == 1:
            return lambda done, total: self.display.bar(done, total, label)
        return lambda done, total: self.display.bar(number + done / total, of, label)

    def weights(self, name: str) -> Path:
        """Where the trained weights of the network called `name` are."""
        return self.folder.artifacts / f"{name}.safetensors"

    def load(self, chosen: Chosen) -> nn.Module:
        """A trained network, in eval mode."""
        module = self.parts.build(chosen.arch, "train")
        load_own(module, self.weights(chosen.name))
        return module.eval()

    def entry(self, chosen: Chosen, latency: Estimate, modelled: float | None) -> Entry:
        """What is known of a network before it is tested; counted on the network that is really built."""
        parts = self.parts
        macs, params = networks.macs_params(parts.build(chosen.arch, "count"), parts.task.example)
        memory = analytic_costs(parts.space)["memory_bytes"]
        return Entry(
            arch=tuple(chosen.arch),
            options=archs.describe(parts.space, chosen.arch),
            macs=macs,
            params=params,
            memory_bytes=int(memory([chosen.arch])[0]),
            latency_ms=latency,
            predicted_latency_ms=modelled,
            elsewhere=parts.latency_model.elsewhere,
            weights=str(self.weights(chosen.name).relative_to(self.folder.path)),
        )

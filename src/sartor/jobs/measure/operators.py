"""`sartor measure --operators`: the latency of every operator of a space on a target, and how wrong their sums are."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from sartor import config
from sartor.config import Table
from sartor.core.abilities import Operated, require
from sartor.core.contracts import Space, Target
from sartor.core.errors import CapabilityError, ConfigError, DataError
from sartor.core.records import Arch
from sartor.core.rng import derive, global_seed, numpy_rng, torch_rng
from sartor.exporting import with_sane_weights
from sartor.jobs.fit.assemble import fitted_to_task
from sartor.jobs.fit.reference import CHUNK
from sartor.latency.agreement import Agreement
from sartor.latency.operator_table import YAML, Entry, OperatorTable
from sartor.latency.operators import OperatorDesign
from sartor.latency.plan import heldout
from sartor.latency.samples import Sample
from sartor.latency.sweeps import Visit, combine
from sartor.run.journal import FileJournal
from sartor.timing.machine import machine
from sartor.timing.meter import Effort, Subject, time_together

QUIET = 0.1
"""Quantile of the anchor's timings that stands for an undisturbed machine; see `sartor.timing.estimate.absolute`."""


class Show(Protocol):
    """How progress is shown."""

    def __call__(self, done: float, total: float, label: str) -> None:
        """So much of so much is done, of what the label says."""


@dataclass(frozen=True)
class Wish:
    """How to measure the operators of a space.

    Attributes:
        sessions: Fresh sessions of each.
        rounds: Interleaved rounds in each session.
        check: Random whole networks, timed in the same rounds, to tell the error of the sums.
        seed: Of the orders and the random networks.
    """

    sessions: int = 5
    rounds: int = 8
    check: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("sessions", 1), ("rounds", 1), ("check", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}; give a larger number")


@dataclass(frozen=True)
class Piece:
    """What is timed: an operator, or a whole network.

    Attributes:
        name: Of the visits.
        shape: Of its input, without the batch.
        build: Makes the module.
    """

    name: str
    shape: tuple[int, ...]
    build: Callable[[], nn.Module]


def space_of(settings: Table) -> Space:
    """The space of a config, told what the task knows (classes, size of the images)."""
    for table in ("space", "task"):
        if not settings.get(table):
            raise ConfigError(f"the config has no [{table}]; add one with a `name`")
    space: Space = config.build("spaces", fitted_to_task(settings["space"], config.build("tasks", settings["task"])))
    return space


def measure_operators(
    space: Space, target: Target, out: Path, wish: Wish | None = None, *, show: Show | None = None
) -> dict[str, Any]:
    """Measure every operator alone, and write the table.

    All operators, and the networks of the check, are visited briefly in sweeps, each in fresh sessions; every round
    has the anchor (the operator with the median multiply-adds) in it. Visits are kept beside the table: the same call
    again goes on, one for more sessions adds to them.

    Args:
        space: A space of operators.
        target: Where they run.
        out: The table: `.json`, `.yaml` or `.yml`.
        wish: How well to measure.
        show: Progress.

    Returns:
        `table`, `operators`, `anchor`, `anchor_ms`, `target`, `machine`, and `check`: None, or networks, nrmse, bias,
        scale, scaled_nrmse (see `Agreement`), and the arch, measured and predicted ms of each network.

    Raises:
        CapabilityError: The space does not list operators.
        ConfigError: The file has another suffix.
        DataError: The visits are of another space or target.
    """
    wish = wish or Wish()
    if out.suffix not in (".json", *YAML):
        raise ConfigError(f"a latency table is a .json or .yaml file, got {out}; give --out another name")
    networks = heldout(space, wish.check, numpy_rng(wish.seed, "operators", "check"), []) if wish.check else []
    bench = _Bench(require(space, Operated, "measure --operators"), space, target, networks)
    visits = bench.visits(out.with_suffix(".visits.jsonl"), wish, show or _nowhere)
    samples = _quiet(combine(visits, (bench.anchor,)), visits, bench.anchor)
    count = len(bench.operators)
    entries = {o.key: _entry(samples[(i,)], visits) for i, o in enumerate(bench.operators)}
    anchor = bench.operators[bench.anchor].key
    facts = {
        "space": type(space).__name__,
        "target": dict(target.describe()),
        "machine": str(machine()["processor"]),
        "anchor": anchor,
        "sessions": wish.sessions,
        "rounds": wish.rounds,
    }
    timed = {arch: samples[(count + i,)].latency_ms for i, arch in enumerate(networks)}
    check = _check(OperatorTable(entries), bench.space, timed) if timed else None
    OperatorTable(entries, {**facts, **({"check": check} if check else {})}).write(out)
    return {"table": str(out), "operators": count, "anchor_ms": entries[anchor].mean, **facts, "check": check}


class _Bench:
    """The operators, and some networks, of a space on a target.

    Attributes:
        operators: All of them.
        anchor: The index of the one that is in every round.
        pieces: The operators, then the networks; a visit's arch is `(index,)`.
    """

    def __init__(self, operated: Operated, space: Space, target: Target, networks: Sequence[Arch]) -> None:
        self.space, self._target = operated, target
        self.operators = operated.operators().all()
        work = OperatorDesign(operated).macs()
        self.anchor = int(np.argsort(work, kind="stable")[len(work) // 2])
        if networks and space.input_shape is None:
            raise CapabilityError(
                f"--check runs whole networks, and {type(space).__name__} has no input_shape; leave it out"
            )
        whole = space.input_shape or ()
        self.pieces = [
            *(Piece(o.key, o.input_shape, partial(operated.operator, o)) for o in self.operators),
            *(Piece(_name(a), whole, partial(space.build, a)) for a in networks),
        ]

    def visits(self, path: Path, wish: Wish, show: Show) -> list[Visit]:
        """Those on file, and those that are missing for the wish."""
        journal = FileJournal(path)
        records = list(journal.read())
        self._same(path, journal, records)
        asked = {"rounds": wish.rounds, "check": wish.check, "seed": wish.seed}
        done = {(r["sweep"], r["chunk"]) for r in records[1:] if asked.items() <= r.items()}
        chunks = [c for c in self._chunks(wish) if c[:2] not in done]
        with tempfile.TemporaryDirectory(prefix="sartor-") as folder:
            subjects = self._prepared(Path(folder), sorted({i for *_, chunk in chunks for i in chunk}), show)
            for number, (sweep, chunk, indices) in enumerate(chunks):
                seed = derive(wish.seed, "operators", sweep, chunk) % 2**31
                timed = time_together({str(i): subjects[i] for i in indices}, Effort.brief(wish.rounds), seed=seed)
                seconds = [list(row) for row in timed.runs[0].seconds]
                names = [self.pieces[i].name for i in indices]
                place = {"sweep": sweep, "chunk": chunk, **asked}
                records.append({"kind": "visits", **place, "names": names, "seconds": seconds})
                journal.append(records[-1])
                show(number + 1, len(chunks), "latency of operators")
        return self._read(records[1:])

    def _chunks(self, wish: Wish) -> Iterator[tuple[int, int, list[int]]]:
        """Sweep, number and pieces of each chunk; the anchor is in all of them."""
        for sweep in range(wish.sessions):
            mixed = numpy_rng(wish.seed, "operators", "sweep", sweep).permutation(len(self.pieces))
            for number, piece in enumerate(np.array_split(mixed, -(-len(mixed) // CHUNK))):
                yield sweep, number, [self.anchor, *(int(i) for i in piece if i != self.anchor)]

    def _prepared(self, folder: Path, wanted: Sequence[int], show: Show) -> dict[int, Subject]:
        """Each piece, prepared once for all its sessions."""
        found: dict[int, Subject] = {}
        for number, i in enumerate(wanted):
            piece, example = self.pieces[i], self._example(i)
            with global_seed(derive(0, "operators", piece.name)):
                module = with_sane_weights(piece.build(), example)
            found[i] = Subject.prepared(self._target, module, example, folder / str(i))
            show(number + 1, len(wanted), "preparing operators")
        return found

    def _example(self, i: int) -> torch.Tensor:
        return torch.randn(1, *self.pieces[i].shape, generator=torch_rng(0, "operators", "input"))

    def _same(self, path: Path, journal: FileJournal, records: list[dict[str, Any]]) -> None:
        """Visits of other operators or another target must not be mixed in."""
        header = {
            "kind": "operators",
            "keys": [o.key for o in self.operators],
            "target": dict(self._target.describe()),
        }
        if not records:
            journal.append(header)
            records.append(header)
        elif records[0] != header:
            raise DataError(f"{path} holds visits of another space or target; give --out another name, or remove it")

    def _read(self, records: Sequence[Mapping[str, Any]]) -> list[Visit]:
        index = {piece.name: i for i, piece in enumerate(self.pieces)}
        return [
            Visit((index[name],), (n, row), 1e3 * seconds)
            for n, record in enumerate(records)
            for row, times in enumerate(record["seconds"])
            for name, seconds in zip(record["names"], times, strict=True)
            if name in index  # networks of another check
        ]


def _quiet(samples: Sequence[Sample], visits: Sequence[Visit], anchor: int) -> dict[Arch, Sample]:
    """Samples by piece, in milliseconds of an undisturbed machine: the ratio to the anchor is what is known."""
    own = [v.ms for v in visits if v.arch == (anchor,)]
    level = next(s.latency_ms for s in samples if s.arch == (anchor,))
    f = float(np.quantile(own, QUIET)) / level
    return {s.arch: Sample(s.arch, s.latency_ms * f, s.low * f, s.high * f, s.ratio) for s in samples}


def _entry(sample: Sample, visits: Sequence[Visit]) -> Entry:
    """With the variance of single visits, as published tables have it."""
    count = sum(v.arch == sample.arch for v in visits)
    spread = (sample.high - sample.low) / 3.92
    return Entry(round(sample.latency_ms, 6), round(spread**2 * count, 9), count)


def _check(table: OperatorTable, space: Operated, timed: Mapping[Arch, float]) -> dict[str, Any]:
    """How well the sums agree with whole networks."""
    predicted, measured = table.tables(space)(list(timed)).numpy(), np.array(list(timed.values()))
    rows = [
        {"arch": list(arch), "measured": round(float(m), 6), "predicted": round(float(p), 6)}
        for arch, m, p in zip(timed, measured, predicted, strict=True)
    ]
    return {**Agreement.of(predicted, measured).as_dict(), "rows": rows}


def _name(arch: Arch) -> str:
    return "network " + "-".join(map(str, arch))


def _nowhere(done: float, total: float, label: str) -> None:
    del done, total, label

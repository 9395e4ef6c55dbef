"""The stages before the search: the reference on the target, and the latency model of the space."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sartor import archs
from sartor.core import files
from sartor.core.contracts import Space
from sartor.core.records import Arch, Estimate
from sartor.core.rng import derive, numpy_rng
from sartor.costs.fitted import Fitted
from sartor.jobs.fit.assemble import LatencyModelSettings
from sartor.jobs.fit.meter import Meter
from sartor.jobs.fit.stage import Job
from sartor.latency import samples
from sartor.latency.operator_table import OperatorTable
from sartor.latency.plan import heldout, plan
from sartor.latency.samples import Header, Sample, Split
from sartor.latency.sweeps import Visit, combine
from sartor.run.journal import FileJournal
from sartor.run.result import LatencyModel, Predicted, Sums
from sartor.timing.machine import machine
from sartor.timing.rounds import OnRound

ANCHOR_ROUNDS = 60
CHUNK = 48
"""Networks that are timed in the same rounds: enough to tell what slowed a round down from who is slow."""


@dataclass(frozen=True)
class Ends:
    """Milliseconds of the reference, which every later latency is a multiple of, and of the smallest network."""

    anchor: Estimate
    floor: Estimate


def measure_reference(job: Job, meter: Meter) -> Ends:
    """Milliseconds of the reference, which every later latency is a multiple of, and of the smallest network."""
    show = job.bar("reference network")
    anchor = meter.set_anchor(rounds=ANCHOR_ROUNDS, on_round=show)
    small = archs.smallest(job.parts.space)
    floor = meter.compare({"smallest": small}, rounds=24, on_round=job.bar("smallest network"))["smallest"]
    job.ledger.count(measured=2)
    job.display.say(
        f"  reference {anchor.value:.3g} ms ({anchor.low:.3g}-{anchor.high:.3g}), "
        f"smallest network of the space {floor.value:.3g} ms"
    )
    return Ends(anchor, floor)


def measured_model(job: Job, meter: Meter | None) -> Fitted:
    """Measure what is missing, fit the latency model, and say how good it is."""
    measure_samples(job, meter)
    model = latency_model(job, meter)
    job.display.say(
        f"  latency model '{model.kind}': NRMSE {model.nrmse:.1%} on {model.heldout_networks} held-out networks, "
        f"from {model.training_networks} measured ones"
    )
    if model.lookup is not None:
        job.display.say(f"  its table of operators alone: {model.lookup}")
    return model


def facts(model: Fitted) -> LatencyModel:
    """What the report shows of a latency model."""
    intervals = {s.arch: s for s in model.heldout}
    return LatencyModel(
        kind=model.kind,
        nrmse=model.nrmse if model.heldout_networks else None,
        training_networks=model.training_networks,
        heldout_networks=model.heldout_networks,
        heldout=tuple(Predicted(p, Estimate(m, intervals[a].low, intervals[a].high)) for a, m, p in model.predictions),
        lookup=None if model.lookup is None else Sums(**asdict(model.lookup)),
    )


def latency_model(job: Job, meter: Meter | None) -> Fitted:
    """The model that the samples on disk give: deterministic, so it needs no file of its own."""
    _, have = samples.read(samples_path(job), job.parts.space)
    kind, table = job.parts.latency_model.kind, operator_table(job)
    return Fitted.of(job.parts.space, _in_milliseconds_of(have, meter), kind=kind, table=table)


def operator_table(job: Job) -> str:
    """The run's own copy of the table of operators, so that a resumed run fits the same; "" without one."""
    source, copy = job.parts.latency_model.table, job.folder.artifacts / "operators.json"
    if source and not copy.exists():
        table = OperatorTable.read(source)
        timed, here = table.facts.get("target"), dict(job.parts.target.describe())
        if timed not in (None, here):
            job.display.say(
                f"  {source} was measured on {timed}, this run is for {here}: the model has more to correct"
            )
        table.write(copy)
    return str(copy) if source else ""


def samples_path(job: Job) -> Path:
    """The run's samples file."""
    return job.folder.artifacts / "latency_samples.jsonl"


def measure_samples(job: Job, meter: Meter | None) -> None:
    """Fill the samples file: with what the user brought, or by measuring what the plan wants."""
    path = samples_path(job)
    header = Header.of(job.parts.space, job.parts.target.describe(), str(machine()["processor"]))
    _adopt(job, path, header)
    if job.parts.latency_model.samples or meter is None:
        return
    wanted = planned(job.parts.space, job.parts.latency_model, job.parts.seed)
    if not path.exists():
        visits = measure_in_sweeps(job, meter, wanted)
        found = combine(visits, job.parts.space.reference, {a for a, split in wanted if split == "heldout"})
        _keep(path, header, _in_milliseconds_of(found, meter))
    job.ledger.count(measured=len(wanted))


def measure_in_sweeps(job: Job, meter: Meter, wanted: Sequence[tuple[Arch, Split]]) -> list[Visit]:
    """Visit all networks briefly, again and again in fresh sessions; `artifacts/visits.jsonl` keeps every chunk.

    One network after another would be quicker to write, but conditions change between networks, and not by a common
    factor: on a busy machine that left errors of 10 % where sweeps leave 3 % (docs/latency_model.md).
    """
    journal = FileJournal(job.folder.artifacts / "visits.jsonl")
    done = {(r["sweep"], r["chunk"]): r for r in journal.read()}
    chunks = list(_chunks(job, wanted))
    for index, (sweep, number, chunk) in enumerate(chunks):
        show = job.bar("latency of networks", index, len(chunks))
        if (sweep, number) not in done:
            timed = _visit(job, meter, chunk, sweep, number, show)
            done[sweep, number] = {"kind": "visits", "sweep": sweep, "chunk": number, **timed}
            journal.append(done[sweep, number])
            job.ledger.book()
        show(1, 1)
    return [
        Visit(tuple(arch), (sweep, number, row), 1e3 * seconds)
        for (sweep, number), record in done.items()
        for row, times in enumerate(record["seconds"])
        for arch, seconds in zip(record["archs"], times, strict=True)
    ]


def _chunks(job: Job, wanted: Sequence[tuple[Arch, Split]]) -> Iterator[tuple[int, int, list[Arch]]]:
    """Sweep, number and networks of every chunk; held-out networks are visited twice as often: they are the judges."""
    settings = job.parts.latency_model
    for sweep in range(2 * settings.sweeps):
        rng = numpy_rng(job.parts.seed, "latency", "sweep", sweep)
        part = [a for a, split in wanted if split == "heldout" or sweep < settings.sweeps]
        mixed = [part[i] for i in rng.permutation(len(part))]
        for number, piece in enumerate(np.array_split(np.arange(len(mixed)), max(1, -(-len(mixed) // CHUNK)))):
            if len(piece):
                yield sweep, number, [mixed[i] for i in piece]


def _visit(job: Job, meter: Meter, chunk: Sequence[Arch], sweep: int, number: int, show: OnRound) -> dict[str, Any]:
    """Time the reference and a chunk of networks in interleaved rounds, each from a fresh session."""
    reference = job.parts.space.reference
    everyone = [reference, *(a for a in chunk if a != reference)]
    seed = derive(job.parts.seed, "latency", "visit", sweep, number) % 2**31
    timed = meter.visit(everyone, rounds=job.parts.latency_model.rounds, seed=seed, on_round=show)
    return {"archs": [list(a) for a in everyone], "seconds": [list(row) for row in timed.seconds]}


def planned(space: Space, settings: LatencyModelSettings, seed: int) -> list[tuple[Arch, Split]]:
    """Which networks to measure: a deterministic list of training networks, and uniformly random held-out ones."""
    train = plan(space, settings.networks, numpy_rng(seed, "latency", "train"), kind=settings.plan)
    held = heldout(space, settings.heldout, numpy_rng(seed, "latency", "heldout"), train)
    return [*((a, "train") for a in train), *((a, "heldout") for a in held)]


def _adopt(job: Job, path: Path, header: Header) -> None:
    """Start from the samples that the user brings."""
    source = job.parts.latency_model.samples
    if not source or path.exists():
        return
    given = Path(source)
    if given.suffix == ".csv":
        _keep(path, header, samples.read_manifest(given, job.parts.space))
        return
    samples.read(given, job.parts.space)  # raises if it is missing, damaged or of another space
    files.atomically(path, partial(shutil.copy, given))


def _keep(path: Path, header: Header, have: Sequence[Sample]) -> None:
    """Write the samples file whole or not at all: where there is one, nothing is measured again."""
    files.atomically(path, lambda part: samples.append(part, header, have))


def _in_milliseconds_of(have: Sequence[Sample], meter: Meter | None) -> list[Sample]:
    """Samples taken side by side with the reference, in this run's milliseconds of the reference."""
    if meter is None or meter.anchor is None:
        return list(have)
    factor = [meter.anchor.value * s.ratio / s.latency_ms if s.ratio else 1.0 for s in have]
    return [
        Sample(s.arch, s.latency_ms * f, s.low * f, s.high * f, s.ratio, s.split)
        for s, f in zip(have, factor, strict=True)
    ]

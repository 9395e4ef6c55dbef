"""The stages before the search: the reference on the target, and the latency model of the space."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sartor import archs, measure
from sartor.core.errors import CapabilityError
from sartor.core.records import Arch
from sartor.core.rng import numpy_rng
from sartor.costs.fitted import Fitted
from sartor.jobs.meter import Meter
from sartor.jobs.stages import Job
from sartor.latency import samples as files
from sartor.latency.plan import plan
from sartor.latency.samples import Header, Sample, Split
from sartor.measure import Estimate

ANCHOR_ROUNDS = 60


def measure_reference(job: Job, meter: Meter) -> dict[str, Any]:
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
    return {"anchor": anchor.as_dict(), "floor": floor.as_dict()}


def fit_latency_model(job: Job, meter: Meter | None) -> dict[str, Any]:
    """Measure networks of the space and fit the latency model; samples append to `artifacts/latency_samples.jsonl`."""
    have = measure_samples(job, meter)
    model = latency_model(job, meter)
    by_arch = {s.arch: s for s in have if s.split == "heldout"}
    tested = list(by_arch)
    predicted = [float(v) for v in model(tested)] if tested else []
    heldout = [
        {"predicted": p, "measured": by_arch[a].latency_ms, "low": by_arch[a].low, "high": by_arch[a].high}
        for a, p in zip(tested, predicted, strict=True)
    ]
    result = {
        "nrmse": model.nrmse,
        "kind": model.kind,
        "training_networks": model.training_networks,
        "heldout_networks": model.heldout_networks,
        "heldout": heldout,
    }
    job.display.say(
        f"  latency model '{model.kind}': NRMSE {model.nrmse:.1%} on {model.heldout_networks} held-out networks, "
        f"from {model.training_networks} measured ones"
    )
    return result


def latency_model(job: Job, meter: Meter | None) -> Fitted:
    """The model that the samples on disk give: deterministic, so it needs no file of its own."""
    path = samples_path(job)
    _, have = files.read(path, job.parts.space)
    anchored = _in_milliseconds_of(have, meter)
    return Fitted.of(job.parts.space, anchored, kind=job.parts.latency_model.kind)


def samples_path(job: Job) -> Path:
    """The run's samples file."""
    return job.folder.artifacts / "latency_samples.jsonl"


def measure_samples(job: Job, meter: Meter | None) -> list[Sample]:
    """Measure what the plan wants and the samples file does not have yet; without a meter, take what was brought."""
    settings, path = job.parts.latency_model, samples_path(job)
    header = Header.of(job.parts.space, job.parts.target.describe(), str(measure.machine()["processor"]))
    _adopt(job, path, header)
    have = files.read(path, job.parts.space)[1] if path.exists() else []
    if meter is None:
        return have
    wanted = planned(job)
    known = {(s.arch, s.split) for s in have}
    missing = [(arch, split) for arch, split in wanted if (arch, split) not in known]
    show = job.bar("latency of networks")
    for index, (arch, split) in enumerate(missing):
        estimate = meter.brief(arch, rounds=settings.rounds * (2 if split == "heldout" else 1))
        sample = _sample(arch, split, estimate, meter)
        files.append(path, header, [sample])
        have.append(sample)
        job.ledger.count(measured=1)
        job.ledger.book()
        show(len(wanted) - len(missing) + index + 1, len(wanted))
    return have


def planned(job: Job) -> list[tuple[Arch, Split]]:
    """Which networks to measure: a deterministic list of training networks, then uniformly random held-out ones."""
    settings, space = job.parts.latency_model, job.parts.space
    if job.parts.latency_model.samples:
        return []
    train: Sequence[Arch] = plan(
        space, settings.networks, numpy_rng(job.parts.seed, "latency", "train"), kind=settings.plan
    )
    rng = numpy_rng(job.parts.seed, "latency", "heldout")
    heldout = [archs.sample(space, rng) for _ in range(settings.heldout)]
    return [*((a, "train") for a in train), *((a, "heldout") for a in dict.fromkeys(heldout))]


def _adopt(job: Job, path: Path, header: Header) -> None:
    """Start from the samples that the user brings."""
    source = job.parts.latency_model.samples
    if not source or path.exists():
        return
    given = Path(source)
    if given.suffix == ".csv":
        files.append(path, header, files.read_manifest(given, job.parts.space))
        return
    files.read(given, job.parts.space)  # raises if it is missing, damaged or of another space
    shutil.copy(given, path)


def _sample(arch: Arch, split: Split, estimate: Estimate, meter: Meter) -> Sample:
    if meter.anchor is None:
        raise CapabilityError("a sample needs the reference's latency; measure the reference first")
    return Sample(arch, estimate.value, estimate.low, estimate.high, estimate.value / meter.anchor.value, split)


def _in_milliseconds_of(have: Sequence[Sample], meter: Meter | None) -> list[Sample]:
    """Samples taken side by side with the reference, in this run's milliseconds of the reference."""
    if meter is None or meter.anchor is None:
        return list(have)
    factor = [meter.anchor.value * s.ratio / s.latency_ms if s.ratio else 1.0 for s in have]
    return [
        Sample(s.arch, s.latency_ms * f, s.low * f, s.high * f, s.ratio, s.split)
        for s, f in zip(have, factor, strict=True)
    ]

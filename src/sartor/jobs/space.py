"""`sartor space`: what of a network can be cut, before anything is trained."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from sartor import archs, networks
from sartor.core.contracts import Target
from sartor.core.records import Arch, Estimate
from sartor.core.tables import Tables
from sartor.costs.macs import Macs
from sartor.costs.memory import Memory
from sartor.costs.params import Params
from sartor.jobs.measure.network import Show
from sartor.spaces.widths import Widths
from sartor.timing.meter import Effort, Subject, time_together

EFFORT = Effort(rounds=24, sessions=2)


def describe_space(space: Widths, target: Target | None = None, *, show: Show | None = None) -> dict[str, Any]:
    """The searchability report of a network.

    Args:
        space: Of the network.
        target: Where the smallest and the full network are timed; None times nothing.
        show: Progress of the timing.

    Returns:
        `groups` (each `name`, `layers`, `options`, `macs_share`: what cutting it alone takes off the MACs), `fixed`
        (each `layer`, `reason`), `floor` and `full` (each `macs`, `params`, `memory_bytes`, and with a target
        `latency_ms`), `uncounted` (what the MACs leave out: each `layer`, `operator`, `why`, `macs`, `params`),
        `keeps_class` (whether results are of the network's own class, as far as was tried), `notes` (what else one must
        know: what was folded, left alone, or is lost).
    """
    full, floor = space.reference, archs.smallest(space)
    models = [Macs(space), Params(space), Memory(space)]
    numbers = {m.metric: m([full, floor]).tolist() for m in models}
    ends: dict[str, dict[str, Any]] = {
        name: {metric: int(values[k]) for metric, values in numbers.items()} for k, name in enumerate(("full", "floor"))
    }
    if target is not None:
        for name, estimate in _timed(space, {"full": full, "floor": floor}, target, show).items():
            ends[name]["latency_ms"] = estimate.as_dict()
    layers = {group.name: group.layers for group in space.coupling.groups}
    alone = _alone(space, full)
    return {
        "groups": [
            {"name": c.name, "layers": list(layers[c.name]), "options": list(c.options), "macs_share": share}
            for c, share in zip(space.choices, alone, strict=True)
        ],
        "fixed": [{"layer": f.layer, "reason": f.reason} for f in space.coupling.fixed],
        "floor": ends["floor"],
        "full": ends["full"],
        "uncounted": [entry._asdict() for entry in networks.counted(space.whole, space.example).uncounted],
        "keeps_class": space.plain,
        "notes": list(space.notes),
        "input": networks.listed(networks.shapes(space.example)),
    }


def _alone(space: Widths, full: Arch) -> list[float]:
    """Share of the MACs that goes with each choice at its smallest option."""
    tables: Tables | None = space.account("macs")
    cost = tables if tables is not None else Macs(space)
    whole = float(cost([full])[0])
    cut = [tuple(0 if j == i else a for j, a in enumerate(full)) for i in range(len(full))]
    return [1 - float(value) / whole for value in cost(cut)]


def _timed(space: Widths, wanted: dict[str, Arch], target: Target, show: Show | None) -> dict[str, Estimate]:
    example = networks.lively(space.example, 1, torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory(prefix="sartor-") as folder:
        subjects = {
            name: Subject.prepared(target, space.build(arch).eval(), example, Path(folder) / name)
            for name, arch in wanted.items()
        }
        return time_together(subjects, EFFORT, reference="full", on_round=show).latencies()

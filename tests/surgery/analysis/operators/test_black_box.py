from __future__ import annotations

import torch

from nets import Gated
from sartor.surgery.analysis.coupling import couple
from sartor.surgery.analysis.opaque import opaque
from sartor.surgery.analysis.operators import rule_of


def test_what_enters_and_leaves_stays_and_the_batch_passes():
    coupling = couple(Gated(), torch.zeros(1, 3, 8, 8), ["gate"])
    (box,) = [n for n in coupling.traced.graph.nodes if n.target is opaque]
    units, labels = coupling.tracker.units, coupling.tracker.dims(box)
    resolved = [units.resolve(d) for d in labels]
    assert units.is_batch(resolved[0]).all()
    assert resolved[1:] == [None, None, None]
    (given,) = box.all_input_nodes
    assert units.resolve(coupling.tracker.dim(given, 1)) is None
    assert units.is_batch(units.resolve(coupling.tracker.dim(given, 0))).all()
    assert any("enters gate" in pin.reason for pin in units.pins)


def test_its_rule_changes_no_numbers():
    coupling = couple(Gated(), torch.zeros(1, 3, 8, 8), ["gate"])
    (box,) = [n for n in coupling.traced.graph.nodes if n.target is opaque]
    rule = rule_of(box)
    assert rule is not None
    assert rule.resize is None
    assert rule.mixes is None

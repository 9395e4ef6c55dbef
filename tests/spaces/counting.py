"""Costs from tables against counts on real networks."""

from __future__ import annotations

import torch

from contracts.test_costs import Peak, flops
from sartor.core.abilities import Accounted
from sartor.costs.macs import Macs
from sartor.costs.memory import Memory
from sartor.costs.params import Params


def assert_costs_equal_a_count(space, batch):
    """MACs, parameters and peak memory of the archs `batch`."""
    x = torch.randn(1, *space.input_shape)
    networks = [space.build(a).eval() for a in batch]
    assert isinstance(space, Accounted)
    assert len(Macs(space).terms()) == 1
    assert len(Memory(space).terms()) > 1
    assert Macs(space)(batch).tolist() == [flops(m, x) for m in networks]
    assert Params(space)(batch).tolist() == [sum(p.numel() for p in m.parameters()) for m in networks]
    peaks = []
    for network in networks:
        meter = Peak(network)
        meter.run(x)
        peaks.append(meter.most())
    assert Memory(space, bytes_per_value=1)(batch).tolist() == peaks
    assert space.account("latency_ms") is None

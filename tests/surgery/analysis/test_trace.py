from __future__ import annotations

import pytest
import torch
from torch import nn

from sartor.core.errors import CapabilityError
from sartor.surgery.analysis.trace import BATCH, line, place, trace
from sartor.surgery.analysis.tracker import operator_name


def _calls(traced):
    return [operator_name(n) for n in traced.graph.nodes if n.op == "call_function"]


def test_the_input_is_found_whatever_its_name():
    traced = trace(nn.Sequential(nn.Linear(3, 4)).eval(), torch.zeros(1, 3))  # nn.Sequential calls it `input`
    node = next(n for n in traced.graph.nodes if n.name == traced.inputs["input"])
    assert tuple(node.meta["val"].shape) == (BATCH, 3)
    assert sorted(traced.weights.values()) == ["0.bias", "0.weight"]


def test_tied_weights_have_one_name():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    assert set(trace(Tied().eval(), torch.zeros(1, 3)).weights.values()) == {"a.weight"}


def test_regions_without_gradient_are_in_line():
    class Net(nn.Module):
        def forward(self, x):
            with torch.no_grad():
                y = x.relu()
            return x + y

    assert {"relu", "add"} <= set(_calls(trace(Net().eval(), torch.zeros(1, 3))))


def test_checks_of_types_are_left_out():
    class Net(nn.Module):
        def forward(self, x):
            return x.to(torch.float64).relu().to(torch.float32)

    assert not [name for name in _calls(trace(Net().eval(), torch.zeros(1, 3))) if name.startswith("_assert")]


def test_places_and_lines():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(3, 3))

        def forward(self, x):
            return self.inner(x).relu()

    nodes = {operator_name(n): n for n in trace(Net().eval(), torch.zeros(1, 3)).graph.nodes}
    assert place(nodes["linear"]) == "inner.0"
    assert place(nodes["relu"]) == ""
    assert "test_trace.py:" in line(nodes["relu"])


def test_a_network_whose_path_depends_on_values_is_named_with_the_line():
    class Net(nn.Module):
        def forward(self, x):
            return x.relu() if x.sum() > 0 else x

    with pytest.raises(CapabilityError, match=r"Net cannot be traced: .*test_trace\.py:\d+"):
        trace(Net().eval(), torch.zeros(1, 3))

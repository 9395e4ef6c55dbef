from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.export import export
from torch.nn import functional

from nets import Branches, Gated, Numbers, Residual, Tokens, Waves
from sartor.core import trees
from sartor.surgery.analysis.recording import record
from sartor.surgery.analysis.structure import filled
from sartor.surgery.analysis.trace import line, place
from sartor.surgery.analysis.tracker import operator_name

NETWORKS = {
    "residual": (Residual, (3, 8, 8)),
    "branches": (Branches, (3, 8, 8)),
    "tokens": (Tokens, (3, 8, 8)),
    "waves": (Waves, (2, 40)),
    "numbers": (Numbers, (3, 8, 8)),
    "recurrent": (lambda: nn.Sequential(nn.LSTM(4, 6, batch_first=True)), (5, 4)),
    "transformer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (5, 8)),
    "frozen": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).requires_grad_(False), (5, 8)),
    "normed": (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))), (4,)),
}


def calls(graph):
    return [(operator_name(n), place(n)) for n in graph.nodes if n.op == "call_function"]


@pytest.mark.parametrize("name", NETWORKS)
def test_it_sees_what_torch_export_sees(name):
    make, shape = NETWORKS[name]
    network, x = make().eval(), torch.randn(2, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lists of weights that an LSTM keeps
        program = export(network, (x,), strict=False)
    found = record(network, x)
    assert calls(found.graph) == [c for c in calls(program.graph) if not c[0].startswith("_assert")]
    assert set(found.weights.values()) == set(dict(network.named_parameters())) | set(dict(network.named_buffers()))
    assert len(trees.leaves(found.structure)) == program.call_spec.out_spec.num_leaves


def run(found, network, x):
    """What the graph computes with the network's weights."""
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    values = {}
    for node in found.graph.nodes:
        if node.op == "placeholder":
            weight = found.weights.get(node.name)
            values[node] = x if node.name == found.inputs["x"] else found.constants.get(node.name, state.get(weight))
        elif node.op == "output":
            return filled(found.structure, [values[a] for a in node.args[0]])
        else:
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
            values[node] = node.target(*args, **kwargs)
    raise AssertionError


class Odd(nn.Module):
    """Views that are worked on in place, constants, pieces, a tensor that is no buffer, a dict as the result."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 8)
        self.b.weight = nn.Parameter(torch.randn(8, 8))
        self.c = nn.Linear(8, 8, bias=False)
        self.c.weight = self.b.weight
        self.table = torch.arange(8.0)
        self.remembered: Tensor | None = None

    def forward(self, x: Tensor) -> dict[str, object]:
        x = self.c(self.b(self.a(x)))
        self.remembered = x
        x[:, :2].mul_(3)
        left, right = x.chunk(2, dim=1)
        scale = torch.tensor([1.0, 2.0, 3.0, 4.0])
        top = (left * scale).topk(2, dim=1)
        return {"sum": left + right, "parts": (top.values, x * self.table), "nothing": None, "number": 3}


def test_the_graph_computes_what_the_network_computes():
    network, x = Odd().eval(), torch.randn(3, 6)
    found = record(network, x)
    assert set(found.weights.values()) == {"a.weight", "a.bias", "b.weight", "b.bias"}
    with torch.no_grad():
        wanted, got = network(x), run(found, network, x)
    assert got["nothing"] is None
    assert got["number"] == 3
    torch.testing.assert_close(got["sum"], wanted["sum"])
    torch.testing.assert_close(got["parts"], wanted["parts"])


def test_the_network_is_not_touched():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn, self.cache, self.last = nn.BatchNorm1d(4), {}, None
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            self.last = self.cache["x"] = self.bn(x)
            return self.last

    network = Counting().train()
    before = copy.deepcopy(network.state_dict())
    found = record(network, torch.randn(2, 4))
    assert [name for name, _ in calls(found.graph)].count("batch_norm") == 1
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert network.last is None
    assert not network.cache
    assert not network._forward_hooks
    assert not network.bn._forward_pre_hooks
    assert network.training


def test_lines_are_those_of_the_networks_code():
    class Net(nn.Module):
        def forward(self, x):
            return functional.relu(x) + 1

    found = [n for n in record(Net(), torch.zeros(2, 3)).graph.nodes if n.op == "call_function"]
    assert [line(n).rpartition("/")[2].partition(":")[0] for n in found] == ["test_recording.py"] * 2


def test_what_depends_on_values_raises():
    with pytest.raises(Exception, match=r"data-dependent|_local_scalar_dense"):
        record(Gated().eval(), torch.zeros(2, 3, 8, 8))


def test_attention_is_taken_apart_again_afterwards():
    before = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(RuntimeError):
        record(nn.Linear(3, 4), torch.zeros(2, 5))
    assert torch.backends.mha.get_fastpath_enabled() == before
    x = torch.zeros(2, 3)
    assert type(x + 1) is Tensor  # no mode is left behind

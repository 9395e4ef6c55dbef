"""What can be rewired; networks of random archs against the whole network with zeros, patched node by node."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nets import Branches, Numbers, Residual, Stages, Tokens, random_
from sartor.core.rng import global_seed
from sartor.spaces.compression import Compression
from sartor.surgery.analysis.coupling import couple
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.analysis.tracker import in_place
from sartor.surgery.students.rewiring import Wiring, functional


def patched(space, network, arch, x):
    """What the whole network gives with zeros wherever a channel is cut, run operator by operator.

    A removed layer hands on what it was given, a skipped block its shortcut; skips are added in front of their layer.
    """
    students, wiring = space.students, space.students.wiring
    chosen = dict(zip([c.name for c in space.choices], arch, strict=True))
    identity = {r.node: r.source for r in wiring.removals if chosen.get(f"keep:{r.name}") == 0}
    identity |= {r.node: r.source for r in wiring.blocks if chosen.get(f"block:{r.name}") == 0}
    extra = {
        t.node: t.sources[chosen[f"skip:{t.name}"] - 1][1] for t in wiring.targets if chosen.get(f"skip:{t.name}", 0)
    }
    state = zeroed(space, network, students.kept(students.plan(arch)))
    values = {}

    def value(node):
        return values[node]

    traced = space.coupling.traced
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            known = {next(iter(traced.inputs.values())): x, **traced.constants}
            values[node] = known[node.name] if node.name in known else state[traced.weights[node.name]]
        elif node.op == "output":
            return torch.fx.map_arg(node.args[0], value)[0]
        elif node in identity:
            values[node] = values[identity[node]]
        else:
            before = values[node.args[0]] if node in extra else None
            if node in extra:
                values[node.args[0]] = before + values[extra[node]]
            args = torch.fx.map_arg(node.args, value)
            values[node] = node.target(*args, **torch.fx.map_arg(node.kwargs, value))
            if node in extra:
                values[node.args[0]] = before
    raise AssertionError


def zeroed(space, network, kept):
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    state = {name: value.detach().clone() for name, value in state.items()}
    for name, dims in space.coupling.weights():
        for d, dim in enumerate(dims):
            roots = space.coupling.tracker.units.resolve(dim)
            if roots is not None and name in state and state[name].is_floating_point():
                state[name].index_fill_(d, torch.from_numpy(np.flatnonzero(~kept[roots].all(1))), 0)
    return state


CASES = {
    "Residual": (Residual, {"steps": 4}),
    "Stages": (Stages, {"steps": 8}),
    "channels": (Stages, {"steps": 8, "coupled": "channels"}),
    "Numbers": (Numbers, {"steps": 4}),
    "Branches": (Branches, {"steps": 1}),  # what a group norm sees of zeros is not what it sees of fewer channels
    "Tokens": (Tokens, {"steps": 1}),
}


@pytest.mark.parametrize("case", CASES)
def test_random_students_compute_what_the_patched_network_does(case):
    kind, settings = CASES[case]
    network = random_(kind()).double().eval()
    x = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    space = Compression(network=network, size=8, importance="none", **settings)
    rng, different = np.random.default_rng(0), 0
    with torch.no_grad():
        whole = network(x)
        for _ in range(15):
            arch = space.moves.draw(rng)
            found, wanted = space.build(arch)(x)[:2], patched(space, network, arch, x[:2])  # traced with two examples
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))
            different += not torch.allclose(found, whole[:2])
    assert different > 10


def test_operators_work_on_new_tensors_where_nobody_can_tell():
    network = random_(Stages()).double().eval()
    coupling = couple(network, torch.zeros(1, 3, 8, 8, dtype=torch.float64))
    assert any(in_place(n) for n in coupling.traced.graph.nodes)
    functional(coupling.traced.graph)
    assert not any(in_place(n) for n in coupling.traced.graph.nodes if n.op == "call_function")


class Sly(nn.Module):
    """What is changed in place is read again under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.a(x)
        flat = x.flatten(2)
        torch.relu_(x)
        return self.head((self.b(x).flatten(2) + flat).mean(2))


def test_tensors_with_other_names_are_left_alone():
    network = random_(Sly()).double().eval()
    coupling = couple(network, torch.zeros(1, 3, 4, 4, dtype=torch.float64))
    functional(coupling.traced.graph)
    assert [n for n in coupling.traced.graph.nodes if n.op == "call_function" and in_place(n)]
    space = Compression(network=network, size=4)
    assert "keep:relu" not in [c.name for c in space.choices]
    x, rng = torch.randn(3, 3, 4, 4, dtype=torch.float64), np.random.default_rng(0)
    torch.testing.assert_close(space.build(space.reference)(x), network(x))
    for _ in range(10):
        assert space.build(space.moves.draw(rng))(x).isfinite().all()


def wiring(network, size=8):
    with global_seed(0):
        coupling = couple(network, torch.zeros(1, 3, size, size))
    functional(coupling.traced.graph)
    return Wiring(Skeleton(coupling), network, (), ())


def test_removable_is_what_keeps_the_shape():
    names = [r.name for r in wiring(Stages()).removals]
    assert names[:4] == ["bn1", "relu", "layer1.0.conv1", "layer1.0.bn1"]
    assert names[4:7] == ["layer1.0.act", "layer1.0.conv2", "layer1.0.bn2"]
    assert "layer2.0.conv1" not in names  # halves the image
    assert "layer2.0.conv2" in names
    assert "linear" not in names
    assert "conv1" not in names
    assert len(names) == len(set(names))


def test_skips_come_from_earlier_values_of_the_shape_of_the_input():
    found = {t.name: [name for name, _, _ in t.sources] for t in wiring(Residual()).targets}
    assert found["expand"] == ["bn", "stem"]  # not the ReLU, which is its input already
    assert "depthwise" in found
    assert "stem" not in found
    assert "pointwise" not in found  # the depthwise convolution is the only value of this size before it
    assert all(name != target for target, names in found.items() for name in names)

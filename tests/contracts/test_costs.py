from __future__ import annotations

import pytest
import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from samples import SPACES, shaped, spaces_with
from sartor import archs
from sartor.core import plugins
from sartor.core.abilities import Layered, Terms
from sartor.core.contracts import CostModel, Space
from sartor.core.rng import numpy_rng
from sartor.costs.macs import Macs
from sartor.costs.memory import Memory
from sartor.costs.params import Params
from sartor.spaces.nats_size import NatsSize
from sartor.spaces.tiny import Tiny

EXACT = shaped(spaces_with(Layered))
COUNTED = [Macs, Params, Memory]
COUNT_BIASES = (NatsSize,)
"""Spaces whose published MACs count the classifier's bias."""


def some(space, n=5):
    rng = numpy_rng(0)
    return [archs.smallest(space), archs.largest(space), *(space.moves.draw(rng) for _ in range(n))]


def constructible():
    """Every cost that can be made of a space alone."""
    for name in plugins.names("costs"):
        cls = plugins.load("costs", name)
        try:
            yield pytest.param(cls(Tiny()), id=name)
        except (TypeError, ValueError):  # needs a file or a target
            continue


def test_the_lists_are_not_silently_short():
    assert len(list(constructible())) >= 3
    assert len(EXACT) >= 6
    assert len(SPACES) >= 6


@pytest.mark.parametrize("cost", list(constructible()))
def test_contract(cost):
    batch = some(Tiny())
    value = cost(batch)
    assert isinstance(cost, CostModel)
    assert cost.metric
    assert (value.shape, value.dtype) == ((len(batch),), torch.float64)
    assert torch.equal(value, torch.cat([cost([a]) for a in batch]))
    assert torch.equal(value, cost(batch))
    assert cost([]).shape == (0,)


@pytest.mark.parametrize("cost", list(constructible()))
def test_tables_agree_with_call(cost):
    batch = some(Tiny(), 20)
    terms = cost.terms() if isinstance(cost, Terms) else ()
    if terms:
        torch.testing.assert_close(torch.stack([t(batch) for t in terms]).amax(0), cost(batch))
    if len(terms) == 1:
        onehot = [[g.double() for g in archs.gates(Tiny(), a)] for a in batch]
        torch.testing.assert_close(torch.stack([terms[0].expected(p) for p in onehot]), cost(batch))


def flops(module, x):
    """Multiply-adds as PyTorch's own counter sees them, operator by operator."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(x)
    return counter.get_total_flops() / 2


class Peak(fx.Interpreter):
    """Runs a network node by node and keeps the most values that are alive in one step.

    Norms, ReLU, reshapes and sums write over their input; global pooling is part of the classifier.
    """

    def __init__(self, module):
        super().__init__(module, garbage_collect_values=False)
        self.root, self.size, self.made, self.steps = {}, {}, {}, []

    def run_node(self, n):
        value = super().run_node(n)
        at = len(self.made)
        self.made[n] = at
        module = self.submodules[n.target] if n.op == "call_module" else None
        fresh = n.op == "placeholder" or isinstance(module, (nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AvgPool2d))
        fresh = fresh or isinstance(module, nn.AdaptiveAvgPool2d) or "getitem" in n.name
        self.root[n] = n if fresh or not n.all_input_nodes else self.root[n.all_input_nodes[0]]
        if isinstance(value, torch.Tensor):
            self.size[self.root[n]] = max(self.size.get(self.root[n], 0), value.numel())
        if fresh and not isinstance(module, nn.AdaptiveAvgPool2d) and n.op != "placeholder":
            self.steps.append(n)
        return value

    def most(self):
        last = {}
        for n, at in self.made.items():
            for user in [n, *n.users]:
                last[self.root[n]] = max(last.get(self.root[n], at), self.made[user])

        def alive(at):
            return sum(s for r, s in self.size.items() if self.made[r] <= at <= last[r])

        return max(alive(self.made[step]) for step in self.steps)


@pytest.mark.parametrize("space", EXACT)
def test_tables_equal_a_count_on_the_real_network(space):
    batch = some(space)
    x = torch.randn(1, *space.input_shape)
    networks = [space.build(a).eval() for a in batch]
    assert len(Macs(space).terms()) == 1
    assert len(Params(space).terms()) == 1
    assert len(Memory(space).terms()) > 1
    biases = space.classes if type(space) in COUNT_BIASES else 0
    assert Macs(space)(batch).tolist() == [flops(m, x) + biases for m in networks]
    assert Params(space)(batch).tolist() == [sum(p.numel() for p in m.parameters()) for m in networks]
    peaks = []
    for network in networks:
        meter = Peak(fx.symbolic_trace(network))
        meter.run(x)
        peaks.append(meter.most())
    assert Memory(space, bytes_per_value=1)(batch).tolist() == peaks


class Opaque(Space):
    """A space that says nothing about its layers."""

    def __init__(self, inner, meta=True):
        self.inner, self.choices, self.input_shape, self.meta = inner, inner.choices, inner.input_shape, meta

    def build(self, arch):
        if not self.meta:
            float(torch.zeros(()))  # a value is read: impossible on the meta device
        return self.inner.build(arch)


@pytest.mark.parametrize("cost", COUNTED)
@pytest.mark.parametrize("meta", [True, False])
def test_spaces_without_layers_are_counted(cost, meta):
    space = Opaque(Tiny(), meta)
    batch, before = some(Tiny()), torch.get_rng_state()
    assert not cost(space).terms()
    assert torch.equal(cost(space)(batch), cost(Tiny())(batch))
    assert torch.equal(torch.get_rng_state(), before)

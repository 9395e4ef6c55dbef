from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nets import Gate, Gated, random_
from sartor.core.errors import ConfigError
from sartor.surgery.analysis.coupling import couple
from sartor.surgery.analysis.opaque import opaque, stand_ins
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.cutting.extraction import as_graph, as_module
from sartor.surgery.cutting.slicing import Engine

X = torch.zeros(1, 3, 8, 8)


@pytest.fixture(scope="module")
def engine():
    network = random_(Gated()).eval()
    nn.init.zeros_(network.first.bias)  # the gate's path is the sign of the input then
    return Engine(Skeleton(couple(network, X, ["gate"])), network)


def test_a_part_that_cannot_be_traced_is_left_as_it_is(engine):
    coupling = engine.skeleton.coupling
    assert [g.name for g in coupling.groups] == ["second"]
    assert "it enters gate, which is left as it is (ignore)" in {f.layer: f.reason for f in coupling.fixed}["first"]
    assert isinstance(engine.network.gate, Gate)


def test_both_ways_through_it_run(engine):
    kept = np.ones(len(engine.skeleton.units) + 1, dtype=bool)
    kept[engine.skeleton.coupling.groups[0].families[0][3:7]] = False
    cut = engine.cut(kept, 2)
    ways = set()
    engine.network.gate.register_forward_hook(lambda m, args, out: ways.add(bool(args[0].sum() > 0)))
    for sign in (1, -1):
        x = sign * torch.rand(3, 3, 8, 8) * 3
        wanted = engine(x, kept)
        for small in (as_module(engine, cut), as_graph(engine, cut)):
            assert type(small.gate) is Gate
            assert small.gate is not engine.network.gate
            assert small.gate.layer.weight.data_ptr() != engine.network.gate.layer.weight.data_ptr()
            assert small.second.out_channels == 8
            torch.testing.assert_close(small(x), wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(engine(x, np.ones_like(kept)), engine.network(x), rtol=1e-5, atol=1e-5)
    assert ways == {True, False}


def test_it_learns_through_the_network(engine):
    engine.network.zero_grad()
    engine(torch.rand(2, 3, 8, 8), np.ones(len(engine.skeleton.units) + 1, dtype=bool)).sum().backward()
    assert engine.network.gate.layer.weight.grad.abs().sum() > 0
    engine.network.zero_grad()


def test_wrong_names_are_told():
    with pytest.raises(ConfigError, match="ignore names 'gates', which Gated has no module of"):
        couple(Gated(), X, ["gates"])
    with pytest.raises(ConfigError, match="ignore names ''"):
        couple(Gated(), X, [""])


class Odd(nn.Module):
    """Modules that cannot be left alone by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.twice, self.never = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.ReLU()
        self.pair = Pair()

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.a(x)))
        return self.pair(x, 2)


class Pair(nn.Module):
    def forward(self, x: Tensor, times: int) -> Tensor:
        return x * times


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("never", "'never', which is not called"),
        ("twice", "'twice' is called more than once; ignore the module around it"),
        ("pair", "'pair' takes or gives something else than tensors"),
    ],
)
def test_what_cannot_be_ignored_is_told_and_the_network_is_whole_again(name, message):
    network = Odd()
    before = dict(network.named_modules())
    with pytest.raises(ConfigError, match=message):
        couple(network, X, [name])
    assert dict(network.named_modules()) == before
    assert not any(m._forward_hooks for m in network.modules())


def test_several_outputs_pass():
    class Halves(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return (x[:, :4], x[:, 4:]) if x.mean() > 0 else (x[:, 4:], x[:, :4])

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.halves = nn.Conv2d(3, 8, 1), Halves()
            self.b, self.head = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            left, right = self.halves(self.a(x))
            return self.head(self.b(left * 2 + right))

    network = random_(Both()).eval()
    engine = Engine(Skeleton(couple(network, X, ["halves"])), network)
    assert [g.name for g in engine.skeleton.coupling.groups] == ["b"]
    kept = np.ones(len(engine.skeleton.units) + 1, dtype=bool)
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(engine(x, kept), network(x))
    kept[engine.skeleton.coupling.groups[0].families[0][:2]] = False
    for make in (as_module, as_graph):
        torch.testing.assert_close(make(engine, engine.cut(kept, 2))(x), engine(x, kept))


def test_the_module_comes_back_even_after_an_error():
    network = Gated()
    gate = network.gate
    with stand_ins(network, ["gate"], torch.zeros(2, 3, 8, 8)):
        assert network.gate is not gate
    assert network.gate is gate
    with pytest.raises(RuntimeError), stand_ins(network, ["gate"], torch.zeros(2, 3, 8, 8)):
        network(torch.zeros(2, 4, 8, 8))
    assert network.gate is gate


def test_the_mark_itself_never_runs():
    with pytest.raises(NotImplementedError, match="gate is run by the network"):
        opaque(torch.zeros(1), module="gate")

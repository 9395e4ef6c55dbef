from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from nets import Branches, Gated, Numbers, Residual, Tokens, random_
from sartor.surgery.analysis.coupling import couple
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.analysis.trace import retraced
from sartor.surgery.analysis.tracker import operator_name
from sartor.surgery.cutting.agreement import agree, difference, near, same, same_kind
from sartor.surgery.cutting.extraction import as_module
from sartor.surgery.cutting.slicing import Cut, Engine

X = torch.zeros(1, 3, 8, 8)


class Shuffle(nn.Module):
    """Channels change places."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 8, 3, groups=2)

    def forward(self, x):
        y = self.first(x)
        b, c, h, w = y.shape
        return self.second(y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)).mean((2, 3))


def whole(network, ignore=()):
    skeleton = Skeleton(couple(network, X, ignore))
    return Engine(skeleton, network), np.ones(len(skeleton.units) + 1, dtype=bool)


def halved(engine, kept):
    """Half of the channels of every group."""
    kept = kept.copy()
    for group in engine.skeleton.coupling.groups:
        for family in group.families:
            kept[family[len(family) // 2 :]] = False
    return engine.cut(kept, 2)


@pytest.mark.parametrize("kind", [Residual, Branches, Tokens, Numbers, Shuffle, Gated])
@pytest.mark.parametrize("examples", [1, 2, 3, 5, 8])
def test_a_network_calls_what_its_own_graph_calls(kind, examples):
    network, ignore = random_(kind()).eval(), ["gate"] if kind is Gated else []
    engine, kept = whole(network, ignore)
    traced = retraced(network, X, ignore, examples)
    assert difference(Cut(engine.skeleton, kept, examples), traced) is None


@pytest.mark.parametrize("kind", [Residual, Branches, Tokens])
def test_a_narrower_network_of_its_class_calls_what_the_cut_calls(kind):
    engine, kept = whole(random_(kind()).eval())
    cut = halved(engine, kept)
    made = as_module(engine, cut)
    assert difference(cut, retraced(made, X, (), 2)) is None
    assert difference(engine.cut(kept, 2), retraced(made, X, (), 2)) is not None  # it has other sizes


class Turned(Residual):
    """Another head, which does something else with the same weights."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        x = torch.relu(self.bn(self.stem(x)))
        x = x + self.reduce(torch.relu(self.bn_expand(self.expand(x))))
        x = torch.relu(self.pointwise(self.depthwise(x)))
        return self.how(self, x)


def plain(net, x):
    return net.head(x.mean((2, 3)))


@pytest.mark.parametrize(
    ("how", "operator"),
    [
        (lambda net, x: net.head(x.mean((3, 2))), "mean"),  # another argument
        (lambda net, x: net.head(x.amax((2, 3))), "mean"),  # another operator
        (lambda net, x: net.head(x.mean((2, 3))) * 1.0, "linear"),  # one more
        (lambda net, x: x.mean((2, 3)), "linear"),  # one fewer
        (lambda net, x: torch.nn.functional.linear(x.mean((2, 3)), net.head.weight[:5]), "linear"),
        (lambda net, x: (net.head(x.mean((2, 3))),), "output"),  # another container
    ],
)
def test_whatever_is_otherwise_is_found(how, operator):
    engine, kept = whole(Turned(plain).eval())
    found = difference(engine.cut(kept, 2), retraced(Turned(how).eval(), X, (), 2))
    assert found is not None
    assert operator_name(found[0]) == operator


def test_constants_count():
    class Scaled(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.layer, self.factor = nn.Conv2d(3, 8, 1), torch.tensor(factor)

        def forward(self, x):
            return self.layer(x) * self.factor

    engine, kept = whole(Scaled(2.0).eval())
    assert difference(engine.cut(kept, 2), retraced(Scaled(2.0).eval(), X, (), 2)) is None
    assert difference(engine.cut(kept, 2), retraced(Scaled(3.0).eval(), X, (), 2)) is not None


def test_containers_and_values_must_be_the_same():
    a, b = torch.randn(2, 3), torch.randn(2, 4)
    assert same_kind({"a": a, "b": [b, None]}, {"a": a + 1, "b": [b, None]})
    for other in ({"a": a}, OrderedDict(a=a, b=[b, None]), {"b": [b, None], "a": a}, {"a": a, "b": (b, None)}, a):
        assert not same_kind(other, {"a": a, "b": [b, None]})
    assert not same_kind({"a": a, "b": [b, 1]}, {"a": a, "b": [b, None]})
    assert not same_kind({"a": a, "n": 1}, {"a": a, "n": 2})
    assert not same_kind(a, b)
    assert not same_kind(a.double(), a)
    assert same([a], [a + 1e-5])
    assert not same([a], [a + 0.1])
    assert near(a + 1e-5, a)
    assert not near(a + 0.1, a)
    assert not near(torch.full((), 1.1), torch.ones(()))
    assert near(a.argmax(1), a.argmin(1))


def test_what_is_infinite_or_no_number_must_be_so_in_both():
    a = torch.tensor([[1.0, torch.inf], [torch.nan, 2.0]])
    assert near(a.clone(), a)
    assert not near(a, a.nan_to_num())
    assert not near(a.nan_to_num(), a)


def test_two_ways_to_compute_agree_or_not():
    x = torch.randn(3, 4)
    assert agree(lambda v: torch.rand(3) + v.sum(), lambda v: torch.rand(3) + v.sum(), x)  # the same random numbers
    assert not agree(lambda v: v * 2, lambda v: v, x)
    assert not agree(lambda v: v[7], lambda v: v, x)
    with pytest.raises(IndexError):
        agree(lambda v: v, lambda v: v[7], x)

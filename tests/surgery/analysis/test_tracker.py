from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from sartor.surgery.analysis.trace import trace
from sartor.surgery.analysis.tracker import Tracker, argument, blame, operator_name, tensors
from sartor.surgery.analysis.units import Units


class _Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1))

    def forward(self, x):
        y = self.body(x)
        return torch.cat([y, y.relu()], dim=1).add_(1)


@pytest.fixture(scope="module")
def traced():
    return trace(_Net().eval(), torch.zeros(1, 3, 2, 2))


def _nodes(traced):
    return {operator_name(n): n for n in traced.graph.nodes if n.op == "call_function"}


def test_names_without_overload_and_in_place_mark(traced):
    assert {"conv2d", "relu", "cat", "add"} <= _nodes(traced).keys()


def test_tensors_in_lists_count(traced):
    nodes = _nodes(traced)
    assert tensors(nodes["cat"]) == [nodes["conv2d"], nodes["relu"]]


def test_arguments_by_place_and_name(traced):
    cat = _nodes(traced)["cat"]
    assert argument(cat, 1, "dim") == 1
    assert argument(cat, 7, "nothing", "else") == "else"


def test_a_place_is_the_module_and_the_operator(traced):
    assert blame(_nodes(traced)["conv2d"]) == "body.0 (conv2d)"


def test_a_weight_takes_the_labels_of_what_it_meets_first(traced):
    units = Units()
    tracker = Tracker(traced, units, {})
    weight = _nodes(traced)["conv2d"].args[1]
    dim = units.fresh(3)
    assert tracker.tie(weight, 1, dim) is dim
    assert tracker.dim(weight, 1) is dim
    again = units.fresh(3)
    tracker.tie(weight, 1, again)
    assert np.array_equal(units.resolve(again), units.resolve(dim))
    tracker.fix(weight, [0], "kernel")
    assert units.resolve(tracker.dim(weight, 0)) is None


def test_constants_have_labels_like_weights():
    class Table(nn.Module):
        def forward(self, x):
            return x * torch.tensor([1.0, 2.0])

    found = trace(Table().eval(), torch.zeros(1, 2))
    tracker = Tracker(found, Units(), {})
    (name,) = found.constants
    node = next(n for n in found.graph.nodes if n.name == name)
    assert tracker.is_weight(node)
    assert len(tracker.dims(node)) == 1


def test_sums_leave_out_what_broadcasts(traced):
    units = Units()
    tracker = Tracker(traced, units, {})
    a, b = units.fresh(4), units.fresh(4)
    found = tracker.sums([[None, a], [b]], [(2, 4), (4,)], (2, 4), "sum")
    assert found[0] is None
    assert np.array_equal(units.resolve(found[1]), units.resolve(b))
    assert tracker.sums([[None, None], [b]], [(2, 1), (4,)], (2, 4), "sum")[1] is b


_FACTORS = st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=4)


@given(_FACTORS, _FACTORS, st.integers(0, 3), st.randoms(use_true_random=False))
def test_a_reshape_moves_labels_as_it_moves_elements(traced, before, extra, where, random):
    """Whatever index of the source goes, the same elements go from the result, by brute force."""
    after = [*before, *extra]
    random.shuffle(after)
    before = [*before, prod(extra)]
    random.shuffle(before)
    assume(prod(before) > 1)
    units = Units()
    tracker = Tracker(traced, units, {})
    dims = [units.fresh(n) if n > 1 else None for n in before]
    found = tracker.reshape(dims, before, after, "view")
    mask = np.ones(len(units) + 1, dtype=bool)
    roots = [r for d in dims if d is not None and (r := units.resolve(d)) is not None]
    if not roots:
        return
    chosen = roots[where % len(roots)]
    mask[chosen[0, chosen[0] >= 0]] = False

    def elements(labels, shape):
        kept = np.ones(shape, dtype=bool)
        for d, dim in enumerate(labels):
            here = units.resolve(dim)
            if here is not None:
                line = [1] * len(shape)
                line[d] = shape[d]
                kept &= mask[here].all(1).reshape(line)
        return kept.reshape(-1)

    assert np.array_equal(elements(dims, before), elements(found, after))

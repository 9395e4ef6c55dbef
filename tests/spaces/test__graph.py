from __future__ import annotations

import pytest
import torch
from torch import nn

from sartor.spaces._graph import Cell, Nothing, edges_of, sums


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


class Gated(Times):
    def forward(self, x, gate):
        return x * gate[self.factor]


def x(*values, size=2):
    return torch.tensor(values, dtype=torch.float64)[None, :, None, None].expand(1, -1, size, size)


def test_edges_lead_from_all_before():
    assert edges_of(1, 3) == ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    assert edges_of(2, 2) == ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


def test_sums_by_hand():
    """Node 2 is a + 10 b; node 3 is 1000 (node 2) without anything from the inputs."""
    factors = {0: 1, 1: 10, 4: 1000}
    found = sums([x(1.0), x(2.0)], edges_of(2, 2), lambda e, v: v * factors[e] if e in factors else None)
    assert [v.unique().tolist() for v in found] == [[21], [21000]]


def test_what_starts_at_nothing_gets_zeros():
    seen = []
    found = sums(
        [x(3.0)], edges_of(1, 2), lambda e, v: seen.append((e, v.unique().tolist())) or (v + 1 if e == 2 else None)
    )
    assert seen == [(0, [3]), (1, [3]), (2, [0])]
    assert [v.unique().tolist() for v in found] == [[0], [1]]


@pytest.mark.parametrize("size", [4, 5])
def test_nothing_has_the_size_after_the_stride(size):
    pooled = nn.AvgPool2d(3, 2, 1)(x(1.0, 2.0, size=size))
    (node,) = sums([x(1.0, 2.0, size=size)], edges_of(1, 1), lambda e, v: None, stride=2)
    assert node.shape == pooled.shape == Nothing(2)(x(1.0, 2.0, size=size)).shape
    assert not node.any()


def test_a_cell_gives_its_last_node_or_all_of_them():
    layers = [Times(2), None, Times(3)]
    assert Cell(layers)(x(1.0)).unique().tolist() == [6]
    assert Cell(layers, concat=True)(x(1.0))[0, :, 0, 0].tolist() == [2, 6]


def test_a_cell_of_two_inputs_with_a_module_for_each():
    cell = Cell([Times(1), Times(1)], inputs=2, before=[Times(5), Times(7)])
    assert cell(x(1.0), x(10.0)).unique().tolist() == [75]


def test_gates_go_to_their_edges():
    cell = Cell([Gated(0), Gated(1), Gated(0)])
    gates = torch.tensor([[2.0, 0], [0, 3], [5, 0]])
    assert cell(x(1.0), gates=gates).unique().tolist() == [3 + 2 * 5]

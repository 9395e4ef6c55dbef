from __future__ import annotations

import pytest
import torch

from sartor import archs
from sartor.core.errors import ConfigError
from sartor.spaces.tiny import Tiny
from sartor.supernet.gates import Cut, cut, rows, shared

WIDTHS = (2, 3, 5)


def mask(gate):
    found = cut(gate, WIDTHS)
    return found.width, None if found.mask is None else found.mask.tolist()


def test_a_hard_shared_gate_is_a_plain_width():
    assert mask(torch.tensor([0.0, 1.0, 0.0])) == (3, None)
    assert mask(torch.tensor([[0.0, 1.0, 0.0]] * 4)) == (3, None)


def test_a_channel_is_multiplied_by_the_gates_of_all_wider_options():
    assert mask(torch.tensor([0.25, 0.25, 0.5])) == (5, [[1.0, 1.0, 0.75, 0.5, 0.5]])
    assert mask(torch.tensor([0.5, 0.5, 0.0])) == (3, [[1.0, 1.0, 0.5]])  # the widest option has no gate: not run
    assert mask(torch.tensor([0.0, 0.5, 0.0])) == (3, [[0.5, 0.5, 0.5]])
    assert mask(torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])) == (3, [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])


def test_by_brute_force():
    gate = torch.rand(6, 3)
    expected = [[sum(g for g, w in zip(row, WIDTHS, strict=True) if w > c) for c in range(5)] for row in gate.tolist()]
    torch.testing.assert_close(cut(gate, WIDTHS).mask, torch.tensor(expected))


def test_a_gate_that_needs_a_gradient_keeps_it():
    gate = torch.tensor([0.0, 1.0, 0.0], requires_grad=True)
    found = cut(gate, WIDTHS)
    assert found.width == 3
    found.scale(torch.ones(2, 3, 1, 1)).sum().backward()
    assert gate.grad.tolist() == [0.0, 6.0, 0.0]


def test_gates_that_say_nothing_are_errors():
    with pytest.raises(ConfigError, match="all are zero"):
        cut(torch.zeros(3), WIDTHS)
    with pytest.raises(ConfigError, match=r"\(2,\) for 3 options"):
        cut(torch.ones(2), WIDTHS)


def test_scale_and_hide():
    x = torch.ones(2, 3, 2, 2)
    shared_mask = Cut(3, torch.tensor([[1.0, 0.5, 0.25]]))
    assert shared_mask.scale(x)[1, :, 0, 0].tolist() == [1.0, 0.5, 0.25]
    assert shared_mask.hide(x) is x
    own = Cut(3, torch.tensor([[1.0, 0.5, 0.0], [1.0, 1.0, 1.0]]))
    assert own.scale(x)[:, :, 0, 0].tolist() == own.mask.tolist()
    assert own.hide(x)[0, :, 0, 0].tolist() == [1.0, 1.0, 0.0]
    assert own.scale(x[..., 0, 0]).tolist() == own.mask.tolist()
    assert Cut(3).scale(x) is x


def test_rows_and_shared():
    space = Tiny()
    batch = [(0, 1, 2), (3, 3, 3)]
    gates = rows(space, batch)
    assert [g.shape for g in gates] == [(2, 4)] * 3
    assert [[int(g[n].argmax()) for g in gates] for n in range(2)] == [list(a) for a in batch]
    assert shared(gates) is None
    assert shared(rows(space, [batch[0]] * 3)) == batch[0]
    assert shared(archs.gates(space, batch[1])) == batch[1]
    assert shared([g * 0.5 for g in archs.gates(space, batch[1])]) is None
    assert [g.shape for g in rows(space, [])] == [(0, 4)] * 3

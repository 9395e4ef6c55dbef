from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sartor.core.errors import CapabilityError
from sartor.costs.params import Params
from sartor.spaces.widths import Widths
from sartor.surgery.analysis.coupling import couple


class Sequence(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **settings: int | bool) -> None:
        super().__init__()
        self.stem = nn.Conv1d(4, 12, 3, padding=1)
        self.recurrent = kind(12, 10, batch_first=True, **settings)
        ways = 2 if settings.get("bidirectional") else 1
        self.head = nn.Linear(10 * ways, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.recurrent(torch.relu(self.stem(x)).transpose(1, 2))
        return self.head(y[:, -1])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_hidden_units_go_from_all_gates_together(kind):
    network = Sequence(kind).eval()
    space = Widths(network=network, input_shape=(4, 9), divisor=1, multipliers=(0.5, 1))
    assert {c.name: c.options for c in space.choices} == {"stem": (6, 12), "recurrent": (5, 10)}
    x, supernet = torch.randn(3, 4, 9), space.supernet().eval()
    torch.testing.assert_close(space.build(space.reference).eval()(x), network(x))
    for arch in ((0, 0), (0, 1), (1, 0)):
        found = space.build(arch).eval()
        assert found.recurrent.hidden_size == (5, 10)[arch[1]]
        assert sum(p.numel() for p in found.parameters()) == Params(space)([arch]).item()
        torch.testing.assert_close(found(x), supernet(x, [torch.eye(2)[a] for a in arch]))


def test_a_hidden_unit_that_is_cut_is_one_that_says_nothing():
    """Zero rows keep an LSTM's unit at zero, so the rest must come out the same without it."""
    network = Sequence(nn.LSTM).double().eval()
    lstm = network.recurrent
    gone = [1, 4, 5, 7, 8]
    rows = [gate * 10 + unit for gate in range(4) for unit in gone]
    with torch.no_grad():
        for weight in (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0):
            weight[rows] = 0
    space = Widths(network=network, input_shape=(4, 9), divisor=1, multipliers=(0.5, 1))
    x = torch.randn(3, 4, 9, dtype=torch.float64)
    torch.testing.assert_close(space.build((1, 0)).eval()(x), network(x))


@pytest.mark.parametrize("settings", [{"num_layers": 2}, {"bidirectional": True}])
def test_where_layers_share_their_states_only_the_inputs_are_cut(settings):
    network = Sequence(nn.LSTM, **settings).eval()
    space = Widths(network=network, input_shape=(4, 9), divisor=1)
    assert {c.name for c in space.choices} == {"stem"}
    x = torch.randn(3, 4, 9)
    torch.testing.assert_close(space.build(space.reference).eval()(x), network(x))


class Normed(nn.Module):
    """Where a channel is off, the norm's bias still speaks."""

    def __init__(self, kind: type[nn.RNNBase], **settings: bool) -> None:
        super().__init__()
        self.stem, self.norm = nn.Linear(4, 12), nn.LayerNorm(12)
        self.recurrent = kind(12, 10, batch_first=True, **settings)
        self.head = nn.Linear(20 if settings.get("bidirectional") else 10, 3)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(self.norm(self.stem(x)))[0][:, -1])


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(nn.LSTM, {}), (nn.GRU, {}), (nn.RNN, {}), (nn.LSTM, {"bidirectional": True}), (nn.GRU, {"bias": False})],
)
def test_masks_compute_what_slices_compute(kind, settings):
    network = Normed(kind, **settings).double().eval()
    space = Widths(network=network, input_shape=(9, 4), divisor=1, multipliers=(0.5, 1))
    supernet, x = space.supernet().eval(), torch.randn(3, 9, 4, dtype=torch.float64)
    for arch in product((0, 1), repeat=len(space.choices)):
        kept = supernet.kept(arch)
        everything = np.ones(len(kept), dtype=bool)
        masked = supernet.engine(x, everything, torch.from_numpy(kept).to(x)[None])
        torch.testing.assert_close(masked, space.build(arch).eval()(x))


def test_examples_of_different_hidden_sizes_are_refused():
    space = Widths(network=Normed(nn.GRU).eval(), input_shape=(9, 4), divisor=1, multipliers=(0.5, 1))
    gates = [torch.eye(2)[[0, 1]], torch.eye(2)[[1, 0]]]
    with pytest.raises(CapabilityError, match="one width per batch"):
        space.supernet()(torch.randn(2, 9, 4), gates)


def test_projections_keep_all():
    network = Sequence(nn.LSTM, proj_size=6)
    network.head = nn.Linear(6, 3)
    found = couple(network, torch.zeros(1, 4, 9))
    assert not found.groups
    assert "projections" in {f.layer: f.reason for f in found.fixed}["stem"]

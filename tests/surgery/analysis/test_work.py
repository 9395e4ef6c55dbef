"""The tables of a space, the cost model and the count of a network that is built say one number, whatever is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import several
from nets import Branches, Gated, Numbers, Residual, Tokens, Waves
from sartor.costs.macs import Macs
from sartor.costs.params import Params
from sartor.networks import macs_params
from sartor.spaces.compression import Compression
from sartor.spaces.widths import Widths
from users import COPIES


class Mixer(nn.Module):
    """Layers that run once per channel: what is cut elsewhere is how often they run."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.up, self.down = nn.Conv2d(3, 16, 4, 4), nn.Linear(4, 24), nn.Linear(24, 4)
        self.wide, self.narrow, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patches(x).flatten(2)
        y = (y + self.down(self.up(y).relu())).transpose(1, 2)
        return self.head((y + self.narrow(self.wide(y).relu())).mean(1))


class Frequencies(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 24, 1)
        self.filter = nn.Parameter(torch.randn(16, 8, 5, dtype=torch.complex64))
        self.last = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.fft.irfft2(torch.fft.rfft2(self.first(x)) * self.filter)
        return self.last(self.middle(y).mean((2, 3)))


class Products(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.pair, self.last = nn.Linear(6, 16), nn.Bilinear(8, 8, 8), nn.Linear(8, 3)
        self.a, self.b = nn.Parameter(torch.randn(16, 20)), nn.Parameter(torch.randn(20, 12))
        self.c, self.bias = nn.Parameter(torch.randn(12, 8)), nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("btc,cd->btd", (self.first(x) @ self.a).relu(), self.b).relu()
        y = torch.addmm(self.bias, y.flatten(0, 1), self.c).view(x.shape[0], -1, 8)
        y = torch.tensordot(y, self.last.weight.T @ self.last.weight, 1)
        return self.last(self.pair(y, y).mean(1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.last = nn.Linear(6, 16), nn.Linear(16, 3)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoderLayer(16, 2, 32, batch_first=True)
        self.queries = nn.Parameter(torch.randn(3, 16))

    def forward(self, x: Tensor) -> Tensor:
        memory = self.encoder(self.enter(x))
        return self.last(self.decoder(self.queries.expand(len(x), -1, -1), memory).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **settings: Any) -> None:
        super().__init__()
        self.first, self.inner = nn.Conv1d(4, 16, 3, padding=1), kind(16, 12, batch_first=True, **settings)
        width = (settings.get("proj_size") or 12) * (1 + settings.get("bidirectional", False))
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(self.first(x).relu().transpose(1, 2))[0][:, -1])


class Steps(nn.Module):
    """Cells in a loop, behind a layer that is left as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left = nn.Linear(6, 16), nn.Sequential(nn.Linear(6, 6), nn.LSTM(6, 6))
        self.lstm, self.gru, self.last = nn.LSTMCell(16, 12), nn.GRUCell(12, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.left(x)[0])
        h, c, g = (x.new_zeros(len(x), n) for n in (12, 12, 10))
        for i in range(x.shape[1]):
            h, c = self.lstm(x[:, i], (h, c))
            g = self.gru(h, g)
        return self.last(g)


NETWORKS: dict[str, tuple[nn.Module, Any, tuple[str, ...]]] = {
    **{kind.__name__: (kind(), torch.zeros(1, 3, 8, 8), ()) for kind in (Residual, Branches, Numbers, Tokens)},
    "gated": (Gated(), torch.zeros(1, 3, 8, 8), ("gate",)),
    "Waves": (Waves(), torch.zeros(1, 2, 20), ()),
    **{
        name: (case.network(), case.batch(1), case.ignore)
        for name, case in several.CASES.items()
        if name != "partly left alone"
    },  # its work depends on values
    "mixer": (Mixer(), torch.zeros(1, 3, 8, 8), ()),
    "frequencies": (Frequencies(), torch.zeros(1, 3, 8, 8), ()),
    "products": (Products(), torch.zeros(1, 7, 6), ()),
    "attention": (Attention(), torch.zeros(1, 7, 6), ()),
    "lstm": (Recurrent(nn.LSTM), torch.zeros(1, 4, 9), ()),
    "bidirectional": (Recurrent(nn.LSTM, bidirectional=True, num_layers=2), torch.zeros(1, 4, 9), ()),
    "gru": (Recurrent(nn.GRU, num_layers=2), torch.zeros(1, 4, 9), ()),
    "projections": (Recurrent(nn.LSTM, proj_size=7), torch.zeros(1, 4, 9), ()),
    "rnn": (Recurrent(nn.RNN), torch.zeros(1, 4, 9), ()),
    "steps": (Steps(), torch.zeros(1, 5, 6), ("left",)),
    "left as it is": (Residual(), torch.zeros(1, 3, 8, 8), ("depthwise",)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_tables_cost_and_count_agree_on_every_arch(name):
    network, example, ignore = NETWORKS[name]
    space = Widths(network=network.eval(), example=example, ignore=ignore, divisor=1, multipliers=(0.25, 0.5, 1))
    rng = np.random.default_rng(0)
    archs = [space.reference, (0,) * len(space.choices)]
    archs += [tuple(int(rng.integers(len(c.options))) for c in space.choices) for _ in range(4)]
    counted = [macs_params(space.build(arch), example) for arch in archs]
    assert counted[0][0] == macs_params(network, example)[0] > counted[1][0]
    assert Macs(space)(archs).tolist() == [macs for macs, _ in counted]
    assert Params(space)(archs).tolist() == [params for _, params in counted]
    tables = space.account("macs")
    assert tables is not None
    assert tables(archs).tolist() == [macs for macs, _ in counted]


def test_a_number_that_the_network_asks_for_is_no_tensor():
    space = Widths(network=COPIES["table by size"](), input_shape=(3, 8, 8), divisor=1)
    for arch in (space.reference, (0,) * len(space.choices)):
        assert space.account("macs").cost(arch) == macs_params(space.build(arch), torch.zeros(1, 3, 8, 8))[0]


class Zeroless(nn.Module):
    """Does not run on what is made up."""

    def forward(self, x: Tensor) -> Tensor:
        if not x.abs().sum():
            raise ValueError("nothing to see")
        return x


def test_where_a_part_does_not_run_by_itself_networks_are_counted():
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.part, self.last = nn.Conv2d(3, 16, 3), Zeroless(), nn.Conv2d(16, 4, 1)
            self.middle = nn.Conv2d(16, 16, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.middle(self.part(self.first(x) + 1).relu()))

    settings = {"network": Picky(), "input_shape": (3, 8, 8), "ignore": ["part"], "importance": "none"}
    students = Compression(**settings, steps=4, changes=("skips",))
    for space in (Widths(**settings, divisor=1), students):
        arch = space.scaled(0.5)
        assert Macs(space)([arch]).item() == macs_params(space.build(arch), torch.ones(1, 3, 8, 8))[0]

from __future__ import annotations

import pytest
import torch
from torch import nn


def _run(check, net, inner, middle, last, **options):
    def forward(self, x):
        return self.last(middle(self.first(x)))

    return check(net(forward, first=nn.Conv2d(3, inner, 1), last=nn.Conv2d(last, 2, 1)), (3, 4, 4), **options)


@pytest.mark.parametrize("split", [lambda x: x.chunk(2, 1), lambda x: x.split(4, 1), lambda x: x.tensor_split(2, 1)])
def test_gates_couple_the_halves(check, net, split):
    def middle(x):
        a, b = split(x)
        return a * b.sigmoid()

    coupling = _run(check, net, 8, middle, 4, groups=[4])
    assert coupling.groups[0].layers == ("first",)


def test_parts_of_different_sizes_are_apart(check, net):
    def middle(x):
        a, b, c = x.split([2, 3, 4], 1)
        return torch.cat([c, a.relu(), b], 1)

    coupling = _run(check, net, 9, middle, 9)
    assert sorted(len(f) for f in coupling.groups[0].families) == [2, 3, 4]


@pytest.mark.parametrize(
    "middle",
    [
        lambda x: torch.cat([x[:, :3], x[:, 3:].relu()], 1),
        lambda x: torch.cat([x[:, -5:].tanh(), x[:, :-5]], 1),
        lambda x: torch.cat([x.narrow(1, 0, 6), x.narrow(1, 6, 2)], 1),
    ],
)
def test_slices_of_channels(check, net, middle):
    _run(check, net, 8, middle, 8)


def test_a_single_channel_that_is_picked_stays(check, net):
    coupling = _run(check, net, 8, lambda x: x * x[:, 2:3], 8, groups=[7])
    assert coupling.groups[0].size == 7


def test_select_keeps_the_channel_and_finds_it_again(check, net):
    _run(check, net, 8, lambda x: x * x[:, 5].unsqueeze(1), 8, groups=[7])


@pytest.mark.parametrize(
    "middle",
    [
        lambda x: x[:, ::2],
        lambda x: x.unbind(1)[0].unsqueeze(1).expand(-1, 4, -1, -1),
        lambda x: x[:, torch.tensor([3, 1, 0, 2])],
        lambda x: x.index_select(1, torch.tensor([3, 1, 0, 2])),
        lambda x: x.flip(1)[:, 1:5],
    ],
)
def test_channels_picked_by_number_stay(check, net, middle):
    _run(check, net, 8, middle, 4, least=0)


@pytest.mark.parametrize(
    "middle",
    [
        lambda x: x.roll((1, -1), (2, 3)),
        lambda x: x.flip(-1),
        lambda x: x[:, :, torch.tensor([3, 1, 0])],
        lambda x: x.index_select(3, torch.tensor([3, 1])),
        lambda x: x[:, :, ::2, 1:],
        lambda x: x[..., 0].unsqueeze(3),
        lambda x: x.unbind(2)[1].unsqueeze(2),
        lambda x: x.unfold(2, 2, 1).amax(-1),
        lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2)),
    ],
)
def test_positions_may_be_picked(check, net, middle):
    _run(check, net, 8, middle, 8, groups=[8])


def test_an_embedding_has_columns_that_may_go(check, net):
    def forward(self, x):
        return self.last(self.table((x > 0).long()))

    check(net(forward, table=nn.Embedding(2, 8), last=nn.Linear(8, 2)), (5,), least=0)

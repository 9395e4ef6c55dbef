from __future__ import annotations

import pytest
import torch
from torch import nn

from sartor.surgery.analysis.coupling import couple
from sartor.surgery.analysis.tracker import operator_name


def _ends(inner=8):
    return {"first": nn.Conv2d(3, inner, 1), "last": nn.Conv2d(inner, 2, 1)}


def test_flattened_channels_and_positions(check):
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(8 * 9, 2))
    check(net, (3, 3, 3), groups=[8])


@pytest.mark.parametrize(
    "there",
    [
        lambda x: x.flatten(2).transpose(1, 2).transpose(1, 2).reshape(x.shape),
        lambda x: x.permute(0, 2, 3, 1).reshape(x.shape[0], 16, 8).transpose(1, 2).unflatten(2, (4, 4)),
        lambda x: x.unsqueeze(1).squeeze(1).movedim(1, -1).movedim(-1, 1),
        lambda x: x.view(x.shape[0], 8, -1).view(-1, 8, 4, 4),
        lambda x: x.unflatten(1, (4, 2)).flatten(1, 2),
        lambda x: x.reshape(-1, 8, 4, 4).swapaxes(2, 3),
        lambda x: x.reshape(-1, 4, 4).unflatten(0, (-1, 8)),
    ],
)
def test_there_and_back_again(check, net, there):
    def forward(self, x):
        return self.last(there(self.first(x)))

    check(net(forward, **_ends()), (3, 4, 4))


def test_a_channel_shuffle_is_one_permutation_and_couples_nothing(check, net):
    def forward(self, x):
        x = self.first(x)
        x = x.view(x.shape[0], 2, 4, 4, 4).transpose(1, 2).contiguous().view(x.shape[0], 8, 4, 4)
        return self.last(x)

    coupling = check(net(forward, **_ends()), (3, 4, 4), groups=[8])
    assert "permuted" in {operator_name(n) for n in coupling.traced.graph.nodes}


def test_a_permutation_of_positions_is_not_one_of_channels(check, net):
    def forward(self, x):
        x = self.first(x)
        return self.last(x.view(-1, 8, 2, 2, 4).transpose(2, 3).reshape(-1, 8, 4, 4))

    check(net(forward, **_ends()), (3, 4, 4), groups=[8])


def test_cat_keeps_its_parts_apart(check, net):
    def forward(self, x):
        return self.last(torch.cat([self.a(x), self.b(x), self.a(x), x], 1))

    layers = {"a": nn.Conv2d(3, 4, 1), "b": nn.Conv2d(3, 5, 1), "last": nn.Conv2d(16, 2, 1)}
    check(net(forward, **layers), (3, 4, 4), groups=[4, 5])


def test_cat_of_positions_couples_channels(check, net):
    def forward(self, x):
        return self.last(torch.cat([self.a(x), self.b(x)], 2))

    layers = {"a": nn.Conv2d(3, 4, 1), "b": nn.Conv2d(3, 4, 1), "last": nn.Conv2d(4, 2, 1)}
    check(net(forward, **layers), (3, 4, 4), groups=[4])


def test_a_stack_couples_its_parts(check, net):
    def forward(self, x):
        return self.last(torch.stack([self.a(x), self.b(x)], 2).sum(2))

    layers = {"a": nn.Conv2d(3, 4, 1), "b": nn.Conv2d(3, 4, 1), "last": nn.Conv2d(4, 2, 1)}
    check(net(forward, **layers), (3, 4, 4), groups=[4])


@pytest.mark.parametrize(
    "wide",
    [
        lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 4, 4),
        lambda x: x.mean((2, 3), keepdim=True).expand(x.shape[0], 8, 4, 4),
        lambda x: x.mean((2, 3), keepdim=True).repeat(1, 1, 4, 4),
        lambda x: x.mean((2, 3), keepdim=True).expand_as(x),
        lambda x: x * x.mean(1, keepdim=True).expand(-1, 8, -1, -1).cos().mul(0).add(1),
        lambda x: x[:, :1].repeat(1, 8, 1, 1) + x,
    ],
)
def test_expand_and_repeat(check, net, wide):
    def forward(self, x):
        return self.last(wide(self.first(x)))

    check(net(forward, **_ends()), (3, 4, 4), least=1, statistics=True)


def test_repeated_channels_go_together(check, net):
    def forward(self, x):
        return self.last(self.first(x).repeat(1, 2, 1, 1))

    check(net(forward, first=nn.Conv2d(3, 4, 1), last=nn.Conv2d(8, 2, 1)), (3, 4, 4), groups=[4])


def test_channels_viewed_as_a_product(check, net):
    def forward(self, x):
        x = self.first(x).unflatten(1, (4, 3))
        return self.last((x * self.scale).flatten(1, 2))

    layers = {"first": nn.Conv2d(3, 12, 1), "scale": nn.Parameter(torch.ones(4, 1, 1, 1)), "last": nn.Conv2d(12, 2, 1)}
    coupling = check(net(forward, **layers), (3, 4, 4), groups=[4])
    assert coupling.groups[0].layers == ("first",)


def test_a_transpose_that_ends_in_the_output_fixes_it():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(2))
    assert couple(net, torch.zeros(1, 3, 4, 4)).groups == ()


@pytest.mark.parametrize("copies", [lambda q, n: torch.tile(q, (n, 1, 1)), lambda q, n: q.repeat(n, 1, 1)])
def test_something_learned_is_repeated_for_every_example(check, net, copies):
    def forward(self, x):
        asked = copies(self.query, len(x))
        share = torch.softmax(asked @ self.key(x).transpose(1, 2), -1)
        return self.last(torch.relu(asked + share @ self.value(x)))

    layers = {"key": nn.Linear(5, 12), "value": nn.Linear(5, 12), "last": nn.Linear(12, 2)}
    query = nn.Parameter(torch.randn(3, 12))
    check(net(forward, query=query, **layers), (4, 5), least=1)

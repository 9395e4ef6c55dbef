from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from sartor.core.rng import global_seed
from sartor.spaces.widths import Widths
from sartor.surgery.cutting import elimination
from sartor.surgery.cutting.elimination import eliminate
from sartor.surgery.cutting.readers import readers, sampled_labels
from sartor.surgery.cutting.slicing import Engine


def eliminated(net, x, shape=(6,), pull=sampled_labels):
    space = Widths(network=net, input_shape=shape, divisor=1, importance="none")
    return space, eliminate(space.coupling, readers(Engine(space._skeleton, space.whole), x, pull))


def mixed(hidden=12, seed=0):
    """A hidden layer in which unit 3 is twice unit 7, unit 5 is a constant, and unit 1 is not read."""
    with global_seed(seed):
        net = nn.Sequential(nn.Linear(6, hidden), nn.Tanh(), nn.Linear(hidden, 5)).eval()
    with torch.no_grad():
        net[0].weight[3], net[0].bias[3] = net[0].weight[7], net[0].bias[7]
        net[0].weight[5] = 0
        net[2].weight[:, 1] = 0
    return net


def test_what_others_make_up_for_goes_first():
    _, found = eliminated(mixed(), torch.randn(256, 6))
    order = found.order[~np.isnan(found.order)]
    first = set(np.argsort(order)[:3].tolist())
    assert first in ({1, 5, 3}, {1, 5, 7})
    (errors,) = found.errors.values()
    assert errors[3] < 5e-3 < errors[5]
    assert (np.diff(errors) >= 0).all()
    assert errors[-1] >= 1 - 1e-9


def test_scores_of_one_family_are_its_ranks():
    _, found = eliminated(mixed(), torch.randn(64, 6))
    assert sorted(found.order[~np.isnan(found.order)].tolist()) == list(range(12))


def test_the_loss_is_that_of_a_ridge_regression():
    """Against the regression on every subset of a size: the first one out is optimal, and its loss is right."""
    with global_seed(3):
        net, x = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)).eval(), torch.randn(512, 6)
    space, found = eliminated(net, x)
    reader = readers(Engine(space._skeleton, space.whole), x, sampled_labels)[1]
    rows = torch.cat(reader.rows, 1)[0].double()
    rows -= rows.mean(0)
    gram = rows.mT @ rows / len(rows)
    ridge = gram + elimination.RIDGE * gram.diagonal().mean() * torch.eye(8, dtype=gram.dtype)
    weight, price = reader.weight[0], reader.slopes / 2

    def loss(kept):
        """Of the best change of the kept weights, with the pull towards the old ones."""
        gone = [i for i in range(8) if i not in kept]
        change = torch.linalg.solve(ridge[kept][:, kept], ridge[kept][:, gone] @ weight[:, gone].mT).mT
        delta = -weight.clone()
        delta[:, kept] = change
        return float((((delta @ ridge) * delta).sum(1) * price).sum())

    one = min(loss(list(kept)) for kept in itertools.combinations(range(8), 7))
    energy = float((((weight @ gram) * weight).sum(1) * price).sum())
    (errors,) = found.errors.values()
    assert errors[1] == pytest.approx(one / energy, rel=1e-6)


def test_a_residual_stream_is_judged_by_all_its_readers():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one, self.two = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 12)
            self.head = nn.Linear(12, 5)

        def forward(self, x):
            x = torch.tanh(self.stem(x))
            x = x + self.one(x)
            return self.head(x + self.two(x))

    with global_seed(1):
        net = Net().eval()
    with torch.no_grad():
        for layer in (net.stem, net.one, net.two):  # nobody reads what unit 4 is
            layer.weight[4], layer.bias[4] = 0, 0
        net.one.weight[:, 8], net.head.weight[:, 8], net.two.weight[:, 8] = 0, 0, 3.0  # only one of them reads unit 8
    space, found = eliminated(net, torch.randn(256, 6))
    (group,) = [g for g in space.coupling.groups if g.name == "stem"]
    order = found.order[group.families[0]]
    assert order[4] == 0
    assert order[8] > 0


def test_depthwise_layers_pass_and_do_not_judge():
    net = nn.Sequential(
        nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.Flatten()
    ).eval()
    space, found = eliminated(net, torch.randn(16, 3, 4, 4), (3, 4, 4))
    assert len(space.coupling.groups) == len(found.errors) == 1
    with torch.no_grad():
        net[3].weight[:, 2] = 0
    _, found = eliminated(net, torch.randn(16, 3, 4, 4), (3, 4, 4))
    assert np.nanargmin(found.order) == space.coupling.groups[0].families[0][2]


def test_wide_readers_scale_what_is_left(monkeypatch):
    exact = eliminated(mixed(), torch.randn(256, 6))[1]
    monkeypatch.setattr(elimination, "FEATURES", 2)
    found = eliminated(mixed(), torch.randn(256, 6))[1]
    order = found.order[~np.isnan(found.order)]
    assert {1, 5} & set(np.argsort(order)[:2].tolist())
    (errors,), (before,) = found.errors.values(), exact.errors.values()
    assert errors[2] >= before[2] - 1e-6  # scaling makes up for less than all weights do


def test_many_go_at_a_time_in_wide_families():
    with global_seed(0):
        net = nn.Sequential(nn.Linear(6, 128), nn.ReLU(), nn.Linear(128, 5)).eval()
    _, found = eliminated(net, torch.randn(512, 6))
    assert sorted(found.order[~np.isnan(found.order)].tolist()) == list(range(128))


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e20])
def test_dead_and_huge_channels(scale):
    net = mixed()
    with torch.no_grad():
        net[0].weight.mul_(0.0)
        net[2].weight.mul_(scale)
    _, found = eliminated(net, torch.randn(32, 6))
    (errors,) = found.errors.values()
    assert np.isfinite(errors).all()

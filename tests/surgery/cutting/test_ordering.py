from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cnn import graded_task, trained_residual
from sartor.core import trees
from sartor.core.errors import CapabilityError
from sartor.spaces.widths import Widths
from sartor.surgery.cutting.ordering import TRIED, best_order, by_elimination, eliminated, taken


@pytest.fixture(scope="module")
def task():
    return graded_task()


@pytest.fixture(scope="module")
def network(task):
    return trained_residual(task)


def made(network, **settings):
    return Widths(network=network, input_shape=(1, 8, 8), divisor=1, multipliers=(0.5, 0.75), **settings)


def data(task, fitted=24, judged=16):
    return taken(task.train(torch.Generator().manual_seed(0)), fitted, judged, lambda t: t, task)


def test_examples_are_parted(task):
    found = data(task)
    assert trees.size(found.fitted) == 24
    assert trees.size(found.judged) == 16
    assert not (found.fitted[:, None] == found.judged[None]).flatten(2).all(2).any()


def test_few_examples_are_shared_out(task):
    x, y = next(iter(task.valid()))
    found = taken([(x[:4], y[:4])], 100, 100, lambda t: t, task)
    assert (trees.size(found.fitted), trees.size(found.judged)) == (2, 2)
    alone = taken([(x[:1], y[:1])], 100, 100, lambda t: t, task)
    assert (trees.size(alone.fitted), trees.size(alone.judged)) == (1, 1)


def test_the_order_with_the_least_distance_is_taken(network, task):
    space, shown = made(network), data(task)
    found = eliminated(space._skeleton, space.whole, shown)
    best = best_order(space._skeleton, space.whole, space._ladders, space.scaled(0.5), shown, found)
    assert set(best.distances) == set(TRIED)
    assert best.distances[best.name] == min(best.distances.values())
    assert len(set(best.distances.values())) > 1


def test_trying_orders_leaves_the_network_as_it_was(network, task):
    space, shown = made(network), data(task)
    before = {name: value.clone() for name, value in space.whole.state_dict().items()}
    found = eliminated(space._skeleton, space.whole, shown)
    best_order(space._skeleton, space.whole, space._ladders, space.scaled(0.5), shown, found)
    assert all(torch.equal(value, before[name]) for name, value in space.whole.state_dict().items())


def test_channels_that_nobody_reads_go_by_their_norms(network, task):
    space, shown = made(network), data(task)
    found = eliminated(space._skeleton, space.whole, shown)
    unread = replace(found, order=torch.full((len(found.order),), torch.nan).numpy())
    assert (by_elimination(space._skeleton, space.whole, unread) >= 0).all()


@pytest.mark.parametrize("importance", ["auto", "obs"])
def test_a_space_orders_its_channels_and_computes_the_same(network, task, importance):
    space, x = made(network, importance=importance), torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        before = network(x)
        space.inform(task)
        torch.testing.assert_close(space.build(space.reference).eval()(x), before)
    assert any("channels are kept by" in note for note in space.notes) == (importance == "auto")
    assert {"own_error", "error", "error_inside"} <= set(space.plans())


def test_untrained_networks_have_no_such_order(task):
    space = Widths(network="torchvision:resnet18", size=32, importance="auto")
    before = space.plans()
    space.inform(task)
    assert set(space.plans()) == set(before)
    with pytest.raises(CapabilityError, match="needs a trained network"):
        Widths(network="torchvision:resnet18", size=32, importance="obs").inform(task)

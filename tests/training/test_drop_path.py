from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from cnn import same_weights, small_cnn, small_task
from samples import SPACES, shaped
from sartor.core.errors import ConfigError
from sartor.core.rng import global_seed
from sartor.spaces.blocks import Blocks
from sartor.spaces.cells import Cells
from sartor.spaces.nasnet import Nasnet
from sartor.spaces.nats_topology import NatsTopology
from sartor.spaces.resnet_widths import ResnetWidths
from sartor.training import Recipe, fit
from sartor.training.drop_path import DropSum, Rate, dropping

WITH_PATHS = (Blocks, Cells, Nasnet, NatsTopology, ResnetWidths)


def rate(value):
    made = Rate()
    made.value = value
    return made


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return (x + self.one(x) + self.two(x)).relu()


def test_a_path_is_left_out_with_its_probability_and_scaled_for_it():
    total = DropSum((False, True), rate(0.25))
    with global_seed(0):
        found = total(torch.zeros(20_000, 1), torch.ones(20_000, 1))
    assert (found == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert found.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert found.mean().item() == pytest.approx(1, abs=0.03)


def test_one_path_is_always_left():
    with global_seed(0):
        found = DropSum((True, True), rate(0.9))(torch.ones(5000, 2, 3), 2 * torch.ones(5000, 2, 3))
    assert found.amin() == 1.0
    assert (found.flatten(1) == found.flatten(1)[:, :1]).all()  # a path goes for the whole of an image


def test_the_terms_of_a_sum_of_three():
    module = Residual()
    dropped = dropping(module, rate(0.0))
    sums = [m for m in dropped.modules() if isinstance(m, DropSum)]
    assert [m.paths for m in sums] == [(False, True, True)]
    x = torch.randn(5, 4)
    torch.testing.assert_close(dropped(x), module(x))
    assert [p.data_ptr() for p in dropped.parameters()] == [p.data_ptr() for p in module.parameters()]


@pytest.mark.parametrize("space", shaped(SPACES))
def test_every_space(space):
    """The reference of a space with paths is the same network while nothing is left out, and another one when it is."""
    made, network = rate(0.0), space.build(space.reference).eval()
    before, x = copy.deepcopy(network), torch.randn(4, *space.input_shape)
    if not isinstance(space, WITH_PATHS):
        try:
            dropping(network, made)
        except ConfigError:
            return
    dropped = dropping(network, made)
    with torch.no_grad():
        torch.testing.assert_close(dropped(x), network(x))
        made.value = 0.5
        assert not torch.equal(dropped(x), network(x))
        made.value = 0.0
        assert torch.equal(dropped(x), before(x))
    assert network.state_dict().keys() == before.state_dict().keys()


def test_the_rate_grows_over_the_training():
    seen = []

    class Watched(Residual):
        def forward(self, x):
            return super().forward(x)

    task = small_task()
    shape = next(iter(task.train(torch.Generator().manual_seed(0))))[0].shape
    network = nn.Sequential(nn.Flatten(), nn.Linear(shape[1:].numel(), 4), Watched(), nn.Linear(4, 10))

    def record(module, inputs):
        seen.append(module.rate.value)

    hook = nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: record(module, inputs) if isinstance(module, DropSum) else None
    )
    try:
        fit(network, task, Recipe(epochs=3, drop_path=0.6, device="cpu"), seed=0)
    finally:
        hook.remove()
    assert seen[0] == 0.0
    assert seen[-1] == pytest.approx(0.6)
    assert seen == sorted(seen)


def test_killed_and_resumed_is_uninterrupted(tmp_path):
    space, recipe = NatsTopology(size=8, cells=1), Recipe(epochs=2, drop_path=0.4, device="cpu")
    task = small_task()
    channels = next(iter(task.train(torch.Generator().manual_seed(0))))[0].shape[1]
    space = NatsTopology(size=8, cells=1, in_channels=channels)

    def fresh():
        with global_seed(0):
            return space.build(space.reference)

    class KilledError(Exception):
        pass

    def kill(done, total, metrics):
        raise KilledError

    whole, killed = fresh(), fresh()
    fit(whole, task, recipe, seed=1)
    with pytest.raises(KilledError):
        fit(killed, task, recipe, seed=1, checkpoint=tmp_path / "c", on_epoch=kill)
    resumed = fresh()
    fit(resumed, task, recipe, seed=1, checkpoint=tmp_path / "c")
    assert same_weights(resumed, whole)
    plain = fresh()
    fit(plain, task, Recipe(epochs=2, device="cpu"), seed=1)
    assert not same_weights(plain, whole)


def test_what_cannot_drop_paths_is_refused():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ConfigError, match="Branching cannot be traced: .*; set drop_path = 0"):  # noqa: RUF043
        dropping(Branching(), rate(0.1))
    with pytest.raises(ConfigError, match="drop_path leaves out terms of sums, and Sequential has none"):
        dropping(small_cnn(), rate(0.1))
    with pytest.raises(ConfigError, match="drop_path must be in"):
        Recipe(drop_path=1.0)

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nets import Branches
from sartor import archs
from sartor.core.contracts import Supernet
from sartor.core.errors import CapabilityError, StateError
from sartor.core.rng import global_seed, numpy_rng, torch_rng
from sartor.spaces.mobilenet_v1 import MobilenetV1
from sartor.spaces.resnet_widths import ResnetWidths
from sartor.spaces.tiny import Tiny
from sartor.spaces.widths import Widths
from sartor.supernet.lineage import read_supernet, write_back

SPACES = [
    Tiny(),
    MobilenetV1(classes=3, size=32, stem="small", width=0.25, multipliers=(0.5, 1.0, 1.5)),
    ResnetWidths(blocks=(1, 2), widths=(8, 16), classes=3, size=8, shortcut="pad"),
    ResnetWidths(blocks=(2, 1), widths=(8, 16), classes=3, size=8),
    Widths(network="nets:residual", size=8, divisor=2),
]
each = pytest.mark.parametrize("space", SPACES, ids=lambda s: type(s).__name__)


def supernet(space):
    with global_seed(1):
        return space.supernet()


def changed(module):
    """Its state with other values everywhere."""
    generator = torch_rng(0, "changes")
    return {
        name: torch.randn(value.shape, generator=generator) if value.is_floating_point() else value + 7
        for name, value in module.state_dict().items()
    }


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@each
def test_what_is_written_back_is_extracted_again(space):
    net, rng = supernet(space), numpy_rng(0)
    for _ in range(3):
        arch = space.moves.draw(rng)
        state = changed(net.extract(arch))
        write_back(net, arch, state)
        assert same(net.extract(arch).state_dict(), state)


def test_weights_that_were_gathered_go_back_to_their_places():
    """Side by side, the channels that a narrower network keeps are not the first ones."""
    space = Widths(network=Branches(), input_shape=(3, 8, 8), divisor=2)
    net, rng = space.supernet(), numpy_rng(0)
    arch = tuple(len(c.options) // 2 for c in space.choices)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = changed(net.extract(arch))
    write_back(net, arch, state)
    assert same(net.extract(arch).state_dict(), state)
    written = sum(int((v != before[k]).sum()) for k, v in net.state_dict().items())
    assert written == sum(v.numel() for v in state.values())
    for _ in range(3):
        other = space.moves.draw(rng)
        state = changed(net.extract(other))
        write_back(net, other, state)
        assert same(net.extract(other).state_dict(), state)


@each
def test_a_narrower_network_gets_the_leading_weights(space):
    net, wide, narrow = supernet(space), archs.largest(space), archs.smallest(space)
    state = changed(net.extract(wide))
    write_back(net, wide, state)
    for name, value in net.extract(narrow).state_dict().items():
        assert torch.equal(value, state[name][tuple(slice(n) for n in value.shape)])


@each
def test_entries_outside_the_network_stay(space):
    net, arch = supernet(space), archs.smallest(space)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = changed(net.extract(arch))
    write_back(net, arch, state)
    untouched = 0
    for name, value in net.state_dict().items():
        shape = state[name.removeprefix("network.")].shape
        outside = torch.ones(value.shape, dtype=torch.bool)
        outside[tuple(slice(n) for n in shape)] = False
        assert torch.equal(value[outside], before[name][outside])
        untouched += int(outside.sum())
        assert not torch.equal(value, before[name])
    assert untouched


def test_neither_the_copy_nor_the_precision_is_seen_outside():
    net = supernet(SPACES[0])
    before = {k: v.clone() for k, v in net.state_dict().items()}
    arch = (1, 2, 3)
    write_back(net, arch, net.extract(arch).state_dict())
    assert same(net.state_dict(), before)
    assert {p.dtype for p in net.parameters()} == {torch.float32}


class Picks(Supernet):
    """One linear layer of which some rows are taken; a mask comes along, and `order` may be any rows."""

    def __init__(self, order, *, factor=1.0, norms=False):
        super().__init__()
        self.layer = nn.Linear(2, 4)
        self.register_buffer("order", torch.tensor(order))
        self.factor, self.norms = factor, norms

    def forward(self, x, gates):
        return self.layer(x)

    def extract(self, arch):
        rows = self.order[: arch[0] + 1]
        if self.norms:
            rows = self.layer.weight.norm(dim=1).argsort(descending=True)[: arch[0] + 1]
        net = nn.Linear(2, len(rows), dtype=self.layer.weight.dtype)
        net.weight = nn.Parameter(self.factor * self.layer.weight[rows].detach())
        net.bias = nn.Parameter(self.layer.bias[rows].detach())
        net.register_buffer("mask", torch.ones(len(rows)))
        return net


def test_any_rows_go_back_to_where_they_were():
    net = Picks([2, 0, 3, 1])
    kept = net.layer.weight[[1, 3]].clone()
    state = changed(net.extract((1,)))
    write_back(net, (1,), state)
    assert torch.equal(net.layer.weight[[2, 0]], state["weight"])
    assert torch.equal(net.layer.weight[[1, 3]], kept)
    assert net.order.tolist() == [2, 0, 3, 1]


@pytest.mark.parametrize("net", [Picks([0, 1, 2, 3], factor=2.0), Picks([0, 1, 2, 3], norms=True)])
def test_weights_without_a_fixed_place_are_refused(net):
    with torch.no_grad():
        net.layer.weight.copy_(torch.tensor([[1.0, 0], [4.0, 0], [2.0, 0], [3.0, 0]]))
    with pytest.raises(CapabilityError, match=r"Picks.extract does not copy all entries of 'weight'"):
        write_back(net, (1,), changed(net.extract((1,))))


def test_weights_of_another_network_are_refused():
    net = supernet(SPACES[0])
    with pytest.raises(
        StateError, match=r"not of network \(1, 2, 3\): .*classifier.weight.* is \(10, 4\), should be \(10, 16\)"
    ):
        write_back(net, (1, 2, 3), net.extract((0, 0, 0)).state_dict())
    state = net.extract((1, 2, 3)).state_dict()
    del state["classifier.bias"]
    with pytest.raises(StateError, match=r"'classifier\.bias' is missing"):
        write_back(net, (1, 2, 3), state)


def test_a_supernet_is_read_or_comes_as_it_is(tmp_path):
    one, two = read_supernet(SPACES[0]), read_supernet(SPACES[0], "")
    assert same(one.state_dict(), two.state_dict())
    save_file(changed(one), tmp_path / "net.safetensors")
    assert same(read_supernet(SPACES[0], tmp_path / "net.safetensors").state_dict(), changed(one))
    with pytest.raises(StateError, match="cannot read the weights"):
        read_supernet(SPACES[0], tmp_path / "nothing")
    with pytest.raises(StateError, match="another supernet"):
        read_supernet(Tiny(classes=3), tmp_path / "net.safetensors")

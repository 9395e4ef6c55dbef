from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nets import Branches, Numbers, Residual, Stages, Tokens, random_
from sartor.costs.memory import Memory
from sartor.networks import macs_params
from sartor.spaces.compression import Compression
from sartor.spaces.widths import Widths

KINDS = [Residual, Branches, Numbers, Stages, Tokens]


@pytest.mark.parametrize("kind", KINDS)
def test_macs_and_parameters_are_those_of_the_networks(kind):
    space = Compression(network=random_(kind()).eval(), size=8, steps=8)
    rng = np.random.default_rng(0)
    drawn = [space.reference, *(space.moves.draw(rng) for _ in range(15))]
    drawn += [tuple(int(rng.integers(len(c.options))) for c in space.choices) for _ in range(5)]
    counted = [macs_params(space.build(arch), torch.zeros(1, 3, 8, 8)) for arch in drawn]
    found = zip(space.tally("macs", drawn).tolist(), space.tally("params", drawn).tolist(), strict=True)
    assert list(found) == counted
    assert len(set(counted)) > 10


class Weighed(nn.Module):
    """A convolution whose weights are standardised: what makes them goes with it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gain = nn.Conv2d(3, 8, 1), nn.Parameter(torch.ones(8, 1, 1, 1))
        self.b, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 2)

    def forward(self, x):
        x = torch.relu(self.a(x))
        weight = self.b.weight - self.b.weight.mean((1, 2, 3), keepdim=True)
        x = nn.functional.conv2d(x, weight * self.gain, self.b.bias, padding=1)
        return self.head(x.mean((2, 3)))


def test_weights_that_only_a_removed_layer_reads_go_with_it():
    space = Compression(network=random_(Weighed()).eval(), size=4, steps=4, changes=("layers",))
    names = [c.name for c in space.choices]
    arch = tuple(0 if "conv2d" in n else a for n, a in zip(names, space.reference, strict=True))
    assert arch != space.reference
    network = space.build(arch)
    assert [n for n, _ in network.named_parameters()] == ["a.weight", "a.bias", "head.weight", "head.bias"]
    assert space.tally("params", [arch]).item() == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("kind", [Residual, Numbers, Stages])
def test_memory_of_the_teacher_is_what_widths_says(kind):
    network = random_(kind()).eval()
    one, two = Compression(network=network, size=8), Widths(network=network, size=8)
    assert Memory(one)([one.reference]).tolist() == Memory(two)([two.reference]).tolist()


def test_a_skip_keeps_its_value_alive():
    """Three layers of eight channels on 4 x 4: a sum needs three feature maps at once, where a chain needs two."""
    layers = [nn.Conv2d(8 if i else 3, 8, 3, padding=1) for i in range(4)]
    space = Compression(network=nn.Sequential(*layers).eval(), size=4, steps=1)
    names = [c.name for c in space.choices]
    plain = space.reference
    assert space.tally("values", [plain]).item() == 2 * 8 * 16
    # the value of layer 0 is added to the input of layer 2: while layer 1 runs, nothing else is there
    one = tuple(1 if n == "skip:2" else a for n, a in zip(names, plain, strict=True))
    assert space.tally("values", [one]).item() == 2 * 8 * 16
    # to that of layer 3: it waits while layer 2 runs
    two = tuple(space.choices[i].options.index("0") if n == "skip:3" else plain[i] for i, n in enumerate(names))
    assert space.tally("values", [two]).item() == 3 * 8 * 16
    # without layer 2 it does not
    three = tuple(0 if n == "keep:2" else a for n, a in zip(names, two, strict=True))
    assert space.tally("values", [three]).item() == 2 * 8 * 16


def test_an_activation_needs_a_map_of_its_own_if_its_input_is_added_later():
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1), nn.Conv2d(2, 8, 1), nn.ReLU()]
    space = Compression(network=nn.Sequential(*layers).eval(), size=4, steps=1, changes=("layers", "skips"))
    at = [c.name for c in space.choices].index("skip:4")
    arch = list(space.reference)
    assert space.tally("values", [space.reference]).item() == (3 + 8) * 16
    arch[at] = space.choices[at].options.index("0")
    assert space.tally("values", [tuple(arch)]).item() == (8 + 8 + 2) * 16


def test_none_and_unknown():
    space = Compression(network=random_(Residual()).eval(), size=8)
    assert space.tally("latency_ms", [space.reference]) is None
    assert space.tally("macs", []).shape == (0,)

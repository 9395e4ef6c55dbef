from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nets import Branches, Residual, Stages, random_
from sartor.spaces.compression import Compression


@pytest.fixture(scope="module")
def space():
    return Compression(network=random_(Stages()).eval(), size=8, steps=8)


def changed(space, **options):
    """The reference with other options, by name with `__` for `:` and `_` for `.`."""
    names = [c.name.replace(".", "_").replace(":", "__") for c in space.choices]
    arch = list(space.reference)
    for name, option in options.items():
        arch[names.index(name)] = option
    return tuple(arch)


def sources(space, target):
    """What can be added to the input of a layer."""
    return [name for name, _, _ in next(t for t in space.students.wiring.targets if t.name == target).sources]


def options(space, arch):
    return {c.name: c.options[a] for c, a in zip(space.choices, arch, strict=True)}


def test_choices_come_in_their_order_with_names(space):
    kinds = [c.name.partition(":")[0] for c in space.choices]
    assert list(dict.fromkeys(kinds)) == ["keep", "block", "width", "skip"]
    assert [c.name[6:] for c in space.choices if c.name.startswith("block")] == ["layer1.0", "layer1.1", "layer2.1"]
    assert options(space, space.reference)["width:conv1"] == 8
    assert options(space, space.reference)["skip:layer1.0.conv1"] == "none"


@pytest.mark.parametrize("kind", [Residual, Branches, Stages])
def test_an_arch_and_its_canonical_form_are_the_same_network(kind):
    space = Compression(network=random_(kind()).eval(), size=8, steps=8)
    rng, merged = np.random.default_rng(0), 0
    for _ in range(12):
        arch = tuple(int(rng.integers(len(c.options))) for c in space.choices)
        one = space.canonical(arch)
        assert space.canonical(one) == one
        a, b = space.build(arch), space.build(one)
        x = torch.randn(2, 3, 8, 8)
        assert torch.equal(a.eval()(x), b.eval()(x))
        assert {k: v.shape for k, v in a.state_dict().items()} == {k: v.shape for k, v in b.state_dict().items()}
        merged += one != arch
    assert merged


def test_single_changes_are_their_own_canonical_form(space):
    for i, choice in enumerate(space.choices):
        for k in range(len(choice.options)):
            arch = (*space.reference[:i], k, *space.reference[i + 1 :])
            tied = choice.name.startswith(("block", "skip")) or "conv" in choice.name
            assert space.canonical(arch) == arch or tied


def test_what_is_inside_a_skipped_block_does_not_matter(space):
    skipped = changed(space, block__layer1_1=0)
    for other in (
        changed(space, block__layer1_1=0, keep__layer1_1_conv1=0),
        changed(space, block__layer1_1=0, width__layer1_1_conv1=0),
        changed(space, block__layer1_1=0, skip__layer1_1_conv2=2),
    ):
        assert space.canonical(other) == skipped
    names = sources(space, "layer2.0.conv1")
    out_of = changed(space, block__layer1_1=0, skip__layer2_0_conv1=1 + names.index("layer1.1.conv1"))
    assert space.canonical(out_of) == skipped


def test_nothing_is_added_in_front_of_a_removed_layer(space):
    assert space.canonical(changed(space, keep__layer1_0_bn1=0, skip__layer1_0_bn1=1)) == changed(
        space, keep__layer1_0_bn1=0
    )


def test_a_removed_layer_stands_for_what_it_was_given(space):
    names = sources(space, "layer1.1.conv1")
    of_norm = changed(space, keep__bn1=0, skip__layer1_1_conv1=1 + names.index("bn1"))
    of_conv = changed(space, keep__bn1=0, skip__layer1_1_conv1=1 + names.index("conv1"))
    assert space.canonical(of_norm) == space.canonical(of_conv) == of_conv


def test_the_width_that_most_layers_share_decides(space):
    """Without its first convolution, a block has the channels of its stage inside."""
    arch = changed(space, keep__layer1_0_conv1=0, width__conv1=2, width__layer1_0_conv1=6)
    assert options(space, space.canonical(arch))["width:layer1.0.conv1"] == 3
    network = space.build(arch)
    assert network.get_submodule("layer1.0.bn1").num_features == 3
    assert network.get_submodule("layer1.0.conv2").in_channels == 3
    free = changed(space, width__conv1=2, width__layer1_0_conv1=6)
    assert space.canonical(free) == free
    assert space.build(free).get_submodule("layer1.0.bn1").num_features == 7


def test_channels_that_padding_brings_are_cut_apart_and_tied_together(space):
    """A stage whose first channels are those of the stage before, with others around them."""
    arch = changed(space, keep__layer2_1_conv1=0, width__conv1=1, width__layer2_0_conv2=3, width__layer2_1_conv1=7)
    network = space.build(arch).double().eval()
    assert network.get_submodule("layer2.1.bn1").num_features == 2 + 4
    assert network(torch.randn(2, 3, 8, 8, dtype=torch.float64)).isfinite().all()


class Dense(nn.Module):
    """Without `c`, what a concatenation puts last meets channels of which the last are cut."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.c, self.head = nn.Conv2d(12, 12, 1), nn.Conv2d(12, 2, 1)
        self.more = nn.Sequential(nn.ReLU(), nn.Tanh(), nn.ReLU(), nn.Tanh())  # the width in most places decides

    def forward(self, x):
        x = self.a(x)
        x = self.c(torch.cat([x, self.b(x)], 1))
        return self.head(self.more(x)).mean((2, 3))


def test_at_least_one_channel_stays_of_what_follows_others():
    space = Compression(network=random_(Dense()).eval(), size=4, steps=4, importance="none")
    rng, least = np.random.default_rng(0), 9
    for _ in range(60):
        arch = tuple(int(rng.integers(len(c.options))) for c in space.choices)
        network = space.build(arch)
        assert network(torch.zeros(2, 3, 4, 4)).shape == (2, 2)
        least = min(least, *(len(p) for p in network.parameters()))
        assert space.tally("params", [arch]).item() == sum(p.numel() for p in network.parameters())
        assert space.canonical(space.canonical(arch)) == space.canonical(arch)
    assert least == 1


def test_skips_tie_too(space):
    names = sources(space, "layer1.1.conv1")
    arch = changed(space, width__conv1=4, skip__layer1_1_conv1=1 + names.index("layer1.0.bn1"))
    assert options(space, space.canonical(arch))["width:layer1.0.conv1"] == 5

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import pad, relu

from sartor import archs
from sartor.core.errors import ConfigError
from sartor.costs.macs import Macs
from sartor.costs.memory import Memory
from sartor.costs.params import Params
from sartor.spaces.resnet_widths import ResnetWidths


@pytest.mark.parametrize(
    ("settings", "params", "macs"),
    [
        ({"shortcut": "pad"}, 269_722, 40_551_040),
        ({}, 272_474, 40_813_184),
        ({"blocks": (5, 5, 5), "shortcut": "pad"}, 464_154, 68_862_592),
        (
            {"blocks": (2,) * 4, "widths": (64, 128, 256, 512), "stem": "imagenet", "size": 224, "classes": 1000},
            11_689_512,
            1_814_073_344,
        ),
    ],
    ids=["resnet20-pad", "resnet20-projection", "resnet32-pad", "resnet18"],
)
def test_published_networks(settings, params, macs):
    space = ResnetWidths(**settings)
    arch = space.reference
    assert int(Params(space)([arch])[0]) == params
    assert int(Macs(space)([arch])[0]) == macs
    with torch.device("meta"):
        assert sum(p.numel() for p in space.build(arch).parameters()) == params


def test_one_choice_per_stage_and_per_block():
    space = ResnetWidths(blocks=(2, 1), widths=(8, 16), divisor=8)
    assert [c.name for c in space.choices] == ["layer1", "layer1.0", "layer1.1", "layer2", "layer2.0"]
    assert [space.choices[i].options[a] for i, a in enumerate(space.reference)] == [8, 8, 8, 16, 16]
    shape = {k: tuple(v.shape) for k, v in space.build(space.scaled(9)).state_dict().items()}
    assert shape["layer1.1.conv2.weight"] == (16, 16, 3, 3)
    assert shape["layer2.0.shortcut.0.weight"] == (24, 16, 1, 1)


@pytest.mark.parametrize("widths", [(8, 16), (16, 8)])
def test_parameter_free_shortcut_by_hand(widths):
    """The graph equals the same sums written out, with more and with fewer channels after the shortcut."""
    space = ResnetWidths(blocks=(1, 1), widths=widths, size=8, shortcut="pad", divisor=8)
    net = space.build(space.reference).eval()
    part = net.get_submodule

    def block(name, x, skip):
        y = part(f"{name}.bn1")(part(f"{name}.conv1")(x))
        return relu(part(f"{name}.bn2")(part(f"{name}.conv2")(relu(y))) + skip)

    x = torch.randn(2, 3, 8, 8)
    y = relu(net.bn1(net.conv1(x)))
    y = block("layer1.0", y, y)
    skip = y[:, :, ::2, ::2]
    skip = pad(skip, (0, 0, 0, 0, 0, 8)) if widths[1] > widths[0] else skip[:, :8]
    y = block("layer2.0", y, skip)
    torch.testing.assert_close(net(x), net.linear(y.mean((2, 3))))


def test_held_feature_maps_count():
    """Inside an identity block the block's input waits: input + output + held, all 8 channels of 8x8 here."""
    space = ResnetWidths(blocks=(2,), widths=(8,), size=8, in_channels=1, divisor=8)
    assert Memory(space, bytes_per_value=1)([space.reference]).tolist() == [3 * 8 * 64]


def test_only_torch_classes_remain():
    network = ResnetWidths(blocks=(1, 1), widths=(8, 8)).build((0,) * 4)
    assert isinstance(network, torch.fx.GraphModule)
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == 6


def test_stage_width_recurs_in_every_block():
    space = ResnetWidths(blocks=(3,), widths=(16,))
    net = space.supernet().eval()
    x = torch.randn(2, *space.input_shape)
    wide, narrow = archs.largest(space), (0, *archs.largest(space)[1:])
    assert not torch.allclose(net(x, archs.gates(space, wide)), net(x, archs.gates(space, narrow)))
    child = net.extract(narrow).state_dict()
    assert {len(child[f"layer1.{b}.bn2.bias"]) for b in range(3)} == {space.choices[0].options[0]}


@pytest.mark.parametrize(
    "settings", [{"blocks": (1, 2)}, {"blocks": (1, 0, 1)}, {"stem": "large"}, {"shortcut": "none"}]
)
def test_wrong_settings_are_explained(settings):
    with pytest.raises(ConfigError, match="got"):
        ResnetWidths(**settings)

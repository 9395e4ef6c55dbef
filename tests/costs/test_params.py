from __future__ import annotations

import pytest
from torch import nn

from sartor.core.contracts import Space
from sartor.core.records import Choice, LayerKey
from sartor.costs.params import _VALUES, Params


class Tied(Space):
    choices = (Choice("width", (3, 5), ordered=True),)

    def build(self, arch):
        width = self.choices[0].options[arch[0]]
        shared = nn.Linear(width, width)
        return nn.Sequential(shared, shared, nn.BatchNorm1d(width))


def test_shared_parameters_count_once_and_statistics_not_at_all():
    assert Params(Tied())([(0,), (1,)]).tolist() == [3 * 3 + 3 + 6, 5 * 5 + 5 + 10]


@pytest.mark.parametrize("bias", [False, True])
def test_one_layer_by_plain_torch(bias):
    """A convolution has either a bias or a norm behind it; a linear layer has no norm."""

    def conv(c_in, c_out, kernel, groups=1):
        own = nn.Conv2d(c_in, c_out, kernel, groups=groups, bias=bias)
        return [own] if bias else [own, nn.BatchNorm2d(c_out)]

    want = {
        "conv": conv(3, 5, 3),
        "separable": [*conv(3, 3, 3, groups=3), *conv(3, 5, 1)],
        "linear": [nn.Linear(3, 5, bias=bias)],
        "depthwise": conv(5, 5, 3, groups=5),
        "add": [],
    }
    for kind, modules in want.items():
        key = LayerKey(kind, (8, 8), 3, 1, bias, 3, 5)
        assert _VALUES[kind](key) == sum(p.numel() for p in nn.ModuleList(modules).parameters())

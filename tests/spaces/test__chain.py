from __future__ import annotations

import pytest
import torch

from sartor.core.errors import ConfigError
from sartor.spaces._chain import Chain, ChainSupernet, Unit


def chain():
    return Chain((Unit("a", "conv", 2, (2, 4)), Unit("b", "separable", 1, (3, 5, 7))), 1, 6, 2)


def test_names_choices_and_layers_agree():
    assert [c.name for c in chain().choices] == ["a", "b"]
    assert [layer.name for layer in chain().layers()] == ["a", "b", "classifier"]
    assert chain().layers()[1].key((1, 2)) == ("separable", (3, 3), 3, 1, False, 4, 7, None)


def test_a_gate_of_the_wrong_length_is_explained():
    net = ChainSupernet(chain())
    with pytest.raises(ConfigError, match="one value per option"):
        net(torch.randn(1, 1, 6, 6), [torch.ones(2), torch.ones(2)])


def test_soft_gates_scale_every_unit_once():
    """Fresh norms in evaluation are linear, so one gate per unit multiplies the logits by the product of the gates."""
    one = Chain((Unit("a", "conv", 1, (4,)), Unit("b", "separable", 1, (4,))), 1, 4, 2)
    net = ChainSupernet(one).eval()
    x = torch.rand(2, 1, 4, 4)
    bias = net.network.classifier.bias
    full = net(x, [torch.ones(1), torch.ones(1)]) - bias
    torch.testing.assert_close(net(x, [torch.full((1,), 0.25), torch.full((1,), 0.5)]) - bias, full * 0.125)

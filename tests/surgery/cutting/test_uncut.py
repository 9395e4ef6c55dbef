from __future__ import annotations

import pytest
import torch
from torch import nn

from sartor.core.errors import CapabilityError, ConfigError
from sartor.surgery.cutting.uncut import asked, check_uncut
from users import Net, belongings, untouched

EXAMPLE = torch.zeros(1, 3, 8, 8)


class Pairs(Net):
    """Takes two examples and more."""

    def forward(self, x):
        return super().forward(x) + x.std(0, correction=1).nan_to_num(nan=1 / (len(x) - 1)).mean()


class Refusing(Net):
    def forward(self, x):
        if len(x) == 1:
            raise ValueError("one is none\nsecond line")
        return super().forward(x)


def test_one_example_is_asked_and_the_network_stays_as_it_is():
    network = Net().train()
    before = belongings(network)
    told = asked(network, EXAMPLE)
    assert untouched(before, belongings(network))
    assert told.name == "Net"
    assert told.inputs.shape == (1, 3, 8, 8)
    assert told.inputs.std() > 0.5
    with torch.no_grad():
        torch.testing.assert_close(told.output, network.eval()(told.inputs))


@pytest.mark.parametrize("kind", [Pairs, Refusing])
def test_what_does_not_take_one_is_asked_for_two(kind):
    assert asked(kind(), EXAMPLE).inputs.shape == (2, 3, 8, 8)


def test_what_does_not_run_is_refused_in_one_line():
    with pytest.raises(ConfigError, match=r"^Net does not run on inputs of the shapes \(2, 4, 8, 8\).*made for") as e:
        asked(Net(), torch.zeros(1, 4, 8, 8))
    assert "\n" not in str(e.value)


def test_the_same_passes_and_anything_else_is_refused():
    network = Net()
    told = asked(network, EXAMPLE)
    check_uncut(network, told)
    other = Net()
    other.load_state_dict(network.state_dict())
    check_uncut(other, told)
    with torch.no_grad():
        other.head.bias[2] += 0.1
    with pytest.raises(CapabilityError, match=r"^Net cannot be followed: .* although nothing is cut"):
        check_uncut(other, told)
    with pytest.raises(CapabilityError, match="cannot be followed"):
        check_uncut(nn.Identity(), told)


def test_it_is_compared_in_evaluation():
    network = Net().train()
    check_uncut(network, asked(network, EXAMPLE))
    assert not network.training

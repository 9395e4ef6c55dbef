from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sartor.core import trees
from sartor.core.errors import CapabilityError
from sartor.core.rng import global_seed
from sartor.surgery.cutting.checked import analysed, drawn
from users import BATCHES, Part, Parted

X = torch.zeros(1, 3, 8, 8)


@pytest.mark.parametrize("name", ["part with a branch", "part with a list", "part with a loop"])
def test_a_part_that_counts_examples_is_left_alone(name, caplog):
    with global_seed(0):
        network = BATCHES[name]()
    checked = analysed(network, X)
    assert checked.ignored == ("part",)
    assert "part is left as it is" in checked.notes[0]
    assert "users.py:" in checked.notes[0]
    assert checked.notes[0] in caplog.text
    assert [g.name for g in checked.coupling.groups]


def test_the_smallest_part_is_left_alone():
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lead = nn.Conv2d(24, 24, 1)
            self.inner = Part(lambda x: x * torch.tensor([1.0 + i for i in range(len(x))]).view(-1, 1, 1, 1))
            self.tail = nn.Conv2d(24, 24, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.tail(self.inner(self.lead(x)))

    network = Parted(lambda x: x)
    network.part = Outer()
    assert analysed(network, X).ignored == ("part.inner",)


def test_a_part_that_takes_numbers_is_left_alone_with_what_is_around_it():
    class Inner(nn.Module):
        def forward(self, x: Tensor, examples: int) -> Tensor:
            return x / examples**0.5

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x, len(x))

    network = Parted(lambda x: x)
    network.part = Outer()
    assert analysed(network, X).ignored == ("part",)


def test_several_parts_are_left_alone():
    network = Parted(lambda x: x / len(x) ** 0.5)
    network.third = nn.Sequential(network.third, Part(lambda x: x * len(x) ** 0.5))
    checked = analysed(network, X)
    assert set(checked.ignored) == {"part", "third.1"}
    assert len(checked.notes) == 2


def test_what_is_ignored_already_is_not_said_again():
    checked = analysed(Parted(lambda x: x / len(x) ** 0.5), X, ["part"])
    assert checked.ignored == ("part",)
    assert not checked.notes


def test_the_network_s_own_code_is_refused_with_operator_and_line():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = functional.relu(self.first(x))
            return self.second(y * 2 if len(x) > 2 else y)

    match = r"Own treats a batch of 3 otherwise than one of two: mul at .*test_checked\.py:\d+"
    with pytest.raises(CapabilityError, match=match) as caught:
        analysed(Own(), X)
    assert "\n" not in str(caught.value)


def test_inputs_are_the_same_every_time():
    one, two = drawn((X, X[:, 0]), 3), drawn((X, X[:, 0]), 3)
    assert all(torch.equal(a, b) for a, b in zip(trees.leaves(one), trees.leaves(two), strict=True))
    assert trees.size(one) == 3

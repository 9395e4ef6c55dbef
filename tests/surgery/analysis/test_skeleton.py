"""What all cuts of a network share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from sartor.core.rng import global_seed
from sartor.surgery.analysis.coupling import couple
from sartor.surgery.analysis.skeleton import Skeleton, changed_later
from sartor.surgery.analysis.tracker import operator_name


class Chain(nn.Module):
    """Two layers, a value in between that is changed in place, and tokens of two pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 1), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu_()
        return self.last(y.flatten(2).transpose(1, 2).flatten(0, 1))


def skeleton() -> Skeleton:
    with global_seed(0):
        return Skeleton(couple(Chain(), torch.zeros(1, 3, 1, 2)))


def test_a_value_is_forgotten_after_its_last_use_and_weights_never():
    found = skeleton()
    forgotten = [node for nodes in found.last_uses.values() for node in nodes]
    made = [node for node in found.calls if node.users]
    assert sorted(n.name for n in forgotten) == sorted(n.name for n in made)
    for node, gone in found.last_uses.items():
        rest = found.nodes[found.nodes.index(node) + 1 :]
        assert not any(g in later.all_input_nodes for g in gone for later in rest)


def test_a_value_that_is_changed_in_place_is_known():
    changed = [operator_name(node) for node in skeleton().calls if changed_later(node)]
    assert changed == ["conv2d"]


def test_the_batch_folded_into_tokens_has_as_many_indices_per_example():
    found = skeleton()
    linear = next(n for n in found.calls if operator_name(n) == "linear")
    rows, features = found.tracker.dims(linear.args[0])
    assert found.period(rows) == 2
    assert found.period(features) == 0
    assert found.period(None) == 0
    image = found.tracker.dims(next(n for n in found.nodes if n.name in found.coupling.traced.inputs.values()))
    assert found.period(image[0]) == 1


def test_labels_of_channels_lead_to_one_unit_each():
    found = skeleton()
    conv = next(n for n in found.calls if operator_name(n) == "conv2d")
    roots = found.roots(found.tracker.dims(conv)[1])
    assert roots.shape[0] == 6
    assert len(np.unique(roots)) == 6


def test_only_operators_whose_arguments_count_channels_or_examples_are_resized():
    assert [operator_name(n) for n in skeleton().resized] == ["conv2d"]  # its number of groups

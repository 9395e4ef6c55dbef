"""How a network is called, and what it gives back without tensors."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from sartor.core import trees
from sartor.core.errors import CapabilityError, DataError
from sartor.surgery.analysis.structure import arguments, feed, filled, outline, paths, same_batch

A, B, C = torch.zeros(2, 1), torch.zeros(2, 2), torch.zeros(2, 3)


class Many(nn.Module):
    def forward(self, a: Tensor, *others: Tensor, b: Tensor | None = None, **rest: Tensor) -> Tensor:
        return a


class Plain(nn.Module):
    def forward(self, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        return a


@dataclass
class Pair:
    left: Tensor
    right: object = None


def test_arguments_are_in_the_order_of_the_signature():
    assert list(arguments(Plain(), {"c": C, "a": A, "b": B})) == ["a", "b", "c"]
    assert arguments(Plain(), (A, B)) == {"a": A, "b": B}
    assert arguments(Plain(), A) == {"input_0": A}  # b is missing: the call will tell
    assert list(arguments(Many(), (A, B, C))) == ["a", "others_0", "others_1"]
    assert list(arguments(Many(), {"z": C, "b": B, "a": A})) == ["a", "b", "z"]
    assert list(arguments(nn.Sequential(nn.ReLU()), A)) == ["input"]


def test_inputs_find_their_arguments():
    assert feed(("a", "b"), (A, B))["b"] is B
    assert list(feed(("a", "b"), {"b": B, "a": A})) == ["a", "b"]
    assert feed(("a",), A) == {"a": A}
    with pytest.raises(DataError, match="Net was traced with the inputs a, b; it is given a"):
        feed(("a", "b"), {"a": A}, "Net")
    with pytest.raises(DataError, match="it is given 3"):
        feed(("a", "b"), (A, B, C))


def test_batches_of_different_sizes_are_named():
    same_batch({"a": A, "b": B})
    same_batch({})
    with pytest.raises(DataError, match=r"'b' has the shape \(3, 2\), input 'a' \(2, 1\)"):
        same_batch({"a": A, "b": torch.zeros(3, 2)})
    with pytest.raises(DataError, match="'b' has the shape"):
        same_batch({"a": A, "b": torch.zeros(())})


def test_an_outline_is_filled_again():
    tree = {"x": [A, (B, None)], "y": Pair(C, 3), "z": OrderedDict(w=A)}
    found = outline(tree, "Net")
    assert all(t.is_meta for t in trees.leaves(found))
    again = filled(found, trees.leaves(tree))
    assert again["x"][1][0] is B
    assert again["y"] == Pair(C, 3)
    assert type(again["z"]) is OrderedDict
    assert [t.shape for t in trees.leaves(found)] == [t.shape for t in trees.leaves(tree)]


def test_what_is_no_tree_is_named():
    with pytest.raises(CapabilityError, match=r"Net gives a object as y\.right; outputs are"):
        outline({"y": Pair(A, object())}, "Net")
    with pytest.raises(CapabilityError, match="Net gives a object; outputs are"):
        outline(object(), "Net")


def test_paths_lead_to_the_tensors():
    tree = {"x": [A, (B, None)], "y": Pair(C)}
    assert paths(tree) == [
        (("item", "x"), ("item", 0)),
        (("item", "x"), ("item", 1), ("item", 0)),
        (("item", "y"), ("attribute", "left")),
    ]
    assert paths(A) == [()]

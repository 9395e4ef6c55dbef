from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from sartor.core import trees
from sartor.core.errors import DataError


@dataclass
class Outputs:
    logits: Tensor
    hidden: tuple[Tensor, ...] = ()
    note: str = "kept"


class Pair(NamedTuple):
    one: Tensor
    two: Tensor


class Fancy(OrderedDict):
    """As the outputs of transformers: a mapping with a class of its own."""


def numbers(*shape: int, start: float = 0.0) -> Tensor:
    return torch.arange(start, start + torch.Size(shape).numel()).reshape(shape)


TREES = {
    "tensor": numbers(4, 2),
    "tuple": (numbers(4, 2), numbers(4)),
    "list": [numbers(4), None, numbers(4, 1)],
    "dict": {"a": numbers(4), "b": {"c": numbers(4, 3)}},
    "dataclass": Outputs(numbers(4, 2), (numbers(4), numbers(4, 2))),
    "named tuple": Pair(numbers(4), numbers(4, 2)),
    "own mapping": Fancy(logits=numbers(4, 2), extra=(numbers(4),)),
    "nested": ({"x": [numbers(4), (numbers(4, 2),)]}, 3, "text"),
}


def same(a, b):
    """Equal structure, classes and values."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    children = trees.children(a)
    if children is None:
        return a == b
    theirs = trees.children(b)
    return (
        type(a) is type(b)
        and theirs is not None
        and all(k == m and same(v, w) for (k, v), (m, w) in zip(children, theirs, strict=True))
    )


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES.keys())
def test_every_kind_of_tree_keeps_its_structure(tree):
    doubled = trees.mapped(lambda t: 2 * t, tree)
    assert [float(t.sum()) for t in trees.leaves(doubled)] == [2 * float(t.sum()) for t in trees.leaves(tree)]
    assert same(trees.mapped(lambda t: t / 2, doubled), trees.mapped(lambda t: t.float(), tree))
    assert trees.size(tree) == 4
    first, rest = trees.rows(tree, slice(0, 1)), trees.rows(tree, slice(1, None))
    assert trees.size(first) == 1
    assert same(trees.joined([first, rest]), tree)
    assert same(trees.joined(trees.parts(tree, 3)), tree)
    assert [trees.size(p) for p in trees.parts(tree, 3)] == [2, 1, 1], "as torch.tensor_split"
    assert len(trees.named(tree)) == len(trees.leaves(tree))
    assert same(trees.to(tree, "cpu"), tree)


def test_names_are_keys_or_numbers():
    assert list(trees.named(TREES["tensor"], "output")) == ["output"]
    assert list(trees.named(TREES["tuple"], "output")) == ["output_0", "output_1"]
    assert list(trees.named(TREES["dict"], "output")) == ["a", "b.c"]
    assert list(trees.named(TREES["dataclass"], "output")) == ["logits", "hidden.0", "hidden.1"]
    assert list(trees.named(TREES["nested"], "output")) == ["output_0.x.0", "output_0.x.1.0"]


class Scaled(nn.Module):
    def forward(self, x, by=1.0):
        return x * by


def test_networks_are_called_by_position_or_by_name():
    x, by = numbers(2), torch.tensor([2.0, 3.0])
    assert trees.call(Scaled(), x).tolist() == [0, 1]
    assert trees.call(Scaled(), (x, by)).tolist() == [0, 3]
    assert trees.call(Scaled(), {"by": by, "x": x}).tolist() == [0, 3]
    assert trees.arguments((x, by))[1] == {}
    assert list(trees.arguments({"x": x})[1]) == ["x"]
    assert trees.arguments(x) == ((x,), {})


def test_one_tensor_is_asked_for_by_name():
    assert trees.single(numbers(2), Scaled()).tolist() == [0, 1]
    with pytest.raises(DataError, match=r"Scaled takes one tensor, and the task gives \(\(2,\), \(3,\)\)"):
        trees.single((numbers(2), numbers(3)), Scaled())


@pytest.mark.parametrize("other", [{"a": numbers(4)}, {"a": numbers(4), "c": numbers(4)}, numbers(4)])
def test_trees_of_other_structure_cannot_be_joined(other):
    with pytest.raises(DataError, match="trees of tensors differ"):
        trees.joined([{"a": numbers(4), "b": numbers(4)}, other])


def test_a_batch_needs_a_tensor():
    with pytest.raises(DataError, match="at least one tensor"):
        trees.size(({}, None))

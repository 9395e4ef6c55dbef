import dataclasses
import json
from collections import OrderedDict, namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor

from sartor.core import trees
from sartor.core.errors import TargetError
from sartor.exporting.structure import Record, decoded, encoded, plain

A, B, C = torch.zeros(1), torch.ones(2), torch.ones(3)
Pair = namedtuple("Pair", "left right")


@dataclasses.dataclass(frozen=True)
class Output:
    logits: Tensor
    features: Any = None


@dataclasses.dataclass
class Model(OrderedDict):  # type: ignore[type-arg]  # as the outputs of transformers are
    logits: Tensor

    def __post_init__(self) -> None:
        self["logits"] = self.logits


TREES = [
    A,
    (A, B),
    [A, (B, [C])],
    {"main": A, "aux": {"deep": [B, C]}, 3: C},
    (A, None, 3, 0.5, True, "word"),
    Output(A, (B, Output(C))),
    (Pair(A, B), C),
    {},
]


@pytest.mark.parametrize("tree", TREES, ids=str)
def test_a_tree_comes_back_from_json(tree: Any) -> None:
    back = decoded(json.loads(json.dumps(encoded(tree))))
    assert list(trees.named(back)) == list(trees.named(tree))
    assert len(trees.leaves(back)) == len(trees.leaves(tree))
    filled = iter(trees.leaves(tree))
    back = trees.mapped(lambda _: next(filled), back)
    assert str(trees.shapes(back)).replace("types.", "") == str(trees.shapes(tree)).replace("types.", "")
    assert (type(back) is type(tree)) or not isinstance(tree, tuple | list | dict)


def test_fields_are_attributes_again() -> None:
    back = decoded(encoded(Output(A, Pair(B, C))))
    assert dataclasses.is_dataclass(back)
    assert back.features.left is back.features[0]
    record = decoded(encoded(Model(A)))
    assert isinstance(record, Record)
    assert record.logits is record["logits"]
    assert isinstance(trees.mapped(lambda t: t + 1, record), Record)
    with pytest.raises(AttributeError, match="no output 'loss'; there are logits"):
        record.loss  # noqa: B018


def test_plain_trees_have_plain_nodes_in_the_same_order() -> None:
    found = plain((Output(A, Pair(B, C)), [Model(A)], "word", 2))
    assert found == ({"logits": A, "features": (B, C)}, [{"logits": A}], None, 2)
    assert type(found[0]["features"]) is tuple
    assert type(found[1][0]) is dict


def test_what_no_file_can_hold_is_named() -> None:
    with pytest.raises(TargetError, match="there is a Normal among its outputs"):
        encoded({"a": torch.distributions.Normal(0.0, 1.0)})
    with pytest.raises(TargetError, match=r"must be strings or integers .* not \(1, 2\)"):
        encoded({(1, 2): A})


@pytest.mark.parametrize(
    "node",
    [
        None,
        [],
        ["nothing"],
        ["tuple", 3],
        ["tuple", [["a"]]],
        ["value", [1]],
        ["dataclass", "A", [["not a name", ["tensor"]]]],
        ["namedtuple", "A", [["class", ["tensor"]]]],
    ],
)
def test_damaged_data_are_a_value_error(node: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        decoded(node)

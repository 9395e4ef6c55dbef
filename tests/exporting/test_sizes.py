from __future__ import annotations

import re

import pytest
import torch

from sartor.core import trees
from sartor.core.errors import ConfigError
from sartor.core.rng import torch_rng
from sartor.exporting.sizes import axes, batched, close, others

IMAGE, IDS, MASK = torch.zeros(1, 3, 8, 12), torch.zeros(1, 5, dtype=torch.int64), torch.zeros(1, 5)


@pytest.mark.parametrize(
    ("example", "dynamic", "found"),
    [
        (IMAGE, ("height", "width"), [{2: "height", 3: "width"}]),
        (IMAGE, ("input.width",), [{3: "input_width"}]),
        ((IDS, MASK), ("length",), [{1: "length"}, {1: "length"}]),
        ((IDS, torch.zeros(1, 7)), ("length",), [{1: "a_length"}, {1: "b_length"}]),
        ({"image": IMAGE, "ids": IDS}, ("ids.1", "height"), [{2: "height"}, {1: "ids_1"}]),
        (IMAGE, (), [{}]),
    ],
)
def test_a_word_is_a_size_of_all_inputs_that_have_it(example, dynamic, found):
    names = list(example) if isinstance(example, dict) else ["input"] if example is IMAGE else ["a", "b"]
    assert axes(example, names, dynamic) == found
    assert all(symbols[0] == "batch" for symbols in batched(found, example))


@pytest.mark.parametrize("wish", ["heigth", "length", "input.0", "input.4", "input.length", "mask.1", "batch", ""])
def test_a_size_that_there_is_not_is_a_line_that_says_which_there_are(wish):
    with pytest.raises(ConfigError, match=r"the inputs input \(1, 3, 8, 12\) have no size") as caught:
        axes(IMAGE, ["input"], (wish,))
    assert re.search(r"; did you mean '(height|input.\d)'\?$|; it takes height, width, input.1", str(caught.value))


def test_other_sizes_are_larger_smaller_alike_and_not_multiples():
    example = {"image": IMAGE, "ids": IDS}
    open_ = axes(example, ["image", "ids"], ("height", "width"))
    found = [trees.shapes(inputs) for inputs in others(example, open_, torch_rng(0, "test"))]
    assert {shape["ids"] for shape in found} == {(3, 5)}
    sizes = [shape["image"][2:] for shape in found]
    assert {shape["image"][:2] for shape in found} == {(3, 3)}
    assert (16, 36) in sizes
    assert any(h < 8 and w < 12 for h, w in sizes)
    assert any(h % 8 and w % 12 for h, w in sizes)
    assert [trees.shapes(inputs)["image"] for inputs in close(example, open_, torch_rng(0, "test"))] == [(3, 3, 9, 13)]
    for none in (others, close):
        assert not list(none(example, [{}, {}], torch_rng(0, "test")))

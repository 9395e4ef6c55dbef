from __future__ import annotations

import operator

import pytest
import torch
from torch import nn

from sartor.surgery.analysis.batches import Counted, Number, fitted, leaves, with_numbers
from sartor.surgery.analysis.coupling import couple
from sartor.surgery.analysis.operators.rule import Call
from sartor.surgery.analysis.tracker import operator_name


def test_arguments_one_by_one():
    found = leaves((1, [2, (3, "a")]), {"dim": 4, "sizes": [5]})
    assert found == {(0,): 1, (1, 0): 2, (1, 1, 0): 3, (1, 1, 1): "a", ("dim",): 4, ("sizes", 0): 5}


@pytest.mark.parametrize(
    ("values", "slope", "start"),
    [
        ({1: 1, 2: 2, 3: 3, 5: 5}, 1, 0),
        ({2: 12, 1: 6, 3: 18, 5: 30}, 6, 0),
        ({1: 0, 2: 1, 3: 2, 5: 4}, 1, -1),
        ({1: 7, 2: 7, 3: 7, 5: 7}, 0, 7),
        ({1: 0.5, 2: 1.0, 3: 1.5, 5: 2.5}, 0.5, 0.0),
    ],
)
def test_a_number_that_counts_examples_is_found(values, slope, start):
    number = fitted((1,), values)
    assert number == Number((1,), slope, start)
    assert {n: number.at(n) for n in values} == values


@pytest.mark.parametrize(
    "values",
    [
        {1: 1, 2: 4, 3: 9, 5: 25},
        {1: 1.0, 2: 0.5, 3: 1 / 3, 5: 0.2},
        {1: 1, 2: 1, 3: 2, 5: 2},
        {1: 1, 2: 2.0, 3: 3, 5: 5},
        {1: True, 2: True, 3: True, 5: True},
        {1: None, 2: None, 3: None, 5: None},
    ],
)
def test_what_does_not_count_examples_is_none(values):
    assert fitted((), values) is None


def test_they_are_put_in_their_places():
    call = Call(operator.add, (1, [2, (3, 4)]), {"sizes": [5, 6]})
    numbers = [Number((1, 1, 0), 10, 1), Number(("sizes", 1), 1, 0), Number((0,), 2, 0)]
    found = with_numbers(call, numbers, 4)
    assert found == Call(operator.add, (8, [2, (41, 4)]), {"sizes": [5, 4]})
    assert call.args == (1, [2, (3, 4)])


def test_an_analysis_takes_what_is_known():
    class Numbered(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.second(self.first(x) + torch.arange(len(x)).view(-1, 1, 1, 1))

    network, x = Numbered().eval(), torch.zeros(1, 3, 4, 4)
    calls = [n for n in couple(network, x).traced.graph.nodes if n.op == "call_function"]
    at = next(i for i, node in enumerate(calls) if operator_name(node) == "arange")
    known = couple(network, x, (), Counted({at: (Number((0,), 1, 0),)}, {at: (0,)}))
    ((node, numbers),) = known.numbers.items()
    assert operator_name(node) == "arange"
    assert numbers == (Number((0,), 1, 0),)
    assert known.tracker.units.is_batch(known.tracker.units.resolve(known.tracker.of[node][0])).all()
    assert not Counted()

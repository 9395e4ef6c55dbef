from __future__ import annotations

import torch
from torch import fx

from sartor.surgery.analysis.operators.rule import replaced


def node(*args, **kwargs) -> fx.Node:
    return fx.Graph().call_function(torch.narrow, args, kwargs)


def test_an_argument_is_replaced_where_it_stands():
    call = replaced(node(1, 2, 3), 1, "dim", 9)
    assert (call.target, call.args, call.kwargs) == (torch.narrow, (1, 9, 3), {})


def test_an_argument_that_is_given_by_name_or_not_at_all_is_named():
    made = node(1, dim=2)
    call = replaced(made, 1, "dim", 9)
    assert (call.args, call.kwargs) == ((1,), {"dim": 9})
    assert replaced(made, 3, "length", 4).kwargs == {"dim": 2, "length": 4}
    assert dict(made.kwargs) == {"dim": 2}

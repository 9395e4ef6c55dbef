from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sartor.core.products import FORMULAS, Call, letters


def call(name: str, *args: object, out: Tensor) -> Call:
    return Call(name, "default", args, {}, out, lambda x: x.shape)


@pytest.mark.parametrize(
    ("name", "shapes", "out", "wanted"),
    [
        ("linear", [(2, 5, 8), (3, 8)], (2, 5, 3), [2 * 5 * 8 * 3]),
        ("linear", [(2, 8), (8,)], (2,), [2 * 8]),
        ("conv2d", [(2, 6, 8, 8), (4, 3, 3, 3)], (2, 4, 6, 6), [2 * 4 * 36 * 3 * 9]),
        ("conv_transpose1d", [(2, 6, 8), (6, 2, 3)], (2, 2, 10), [2 * 6 * 8 * 2 * 3]),
        ("bmm", [(2, 3, 4), (2, 4, 5)], (2, 3, 5), [2 * 3 * 4 * 5]),
        ("addmm", [(5,), (3, 4), (4, 5)], (3, 5), [3 * 4 * 5]),
        ("dot", [(4,), (4,)], (), [4]),
        ("scaled_dot_product_attention", [(1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 6)], (1, 2, 3, 6), [120, 180]),
        ("mul", [(2, 3), (2, 3)], (2, 3), [6]),
    ],
)
def test_products_by_hand(name, shapes, out, wanted):
    made = call(name, *(torch.empty(shape) for shape in shapes), out=torch.empty(out))
    assert [made.multiplied(product) for product in FORMULAS[name](made)] == wanted


def test_a_factor_that_is_no_tensor_makes_no_product():
    x = torch.empty(2, 3)
    assert FORMULAS["mul"](call("mul", x, 2.0, out=x)) == []


def test_dimensions_are_places_of_a_tensor():
    x = torch.empty(2, 3, 4)
    made = call("linear", x, out=x)
    assert made.dims(x, 0, -1) == ((x, 0), (x, 1))
    assert made.size(made.last(x)) == 4
    assert not made.is_tensor(None)


def test_letters_of_an_einsum():
    assert letters("ij , jk", [2, 2]) == (["ij", "jk"], "ik")
    one, two = "\u0391\u0392"
    assert letters("...ij,jk->...ik", [4, 2]) == ([f"{one}{two}ij", "jk"], f"{one}{two}ik")

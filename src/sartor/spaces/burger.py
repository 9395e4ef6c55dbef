"""Burgers of three layers with a price and a taste each: the smallest example of a search under a budget.

Source: the idea is that of the blog post on "LayerNAS: neural architecture search in polynomial complexity" (Fan et
al., Google Research, 2023); the numbers are our own. The tastes add up, and so do the prices, so that the best burger
for the money is the solution of a knapsack problem.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sartor.core.abilities import Accounted
from sartor.core.contracts import Space
from sartor.core.records import Arch, Choice
from sartor.core.tables import Tables

__all__ = ["Burger"]

# Name, price, taste; cheapest first. The dearest is not always the best.
_MENU = {
    "bread": (("toast", 1, 10), ("sesame", 2, 22), ("brioche", 4, 28), ("gilded", 9, 25)),
    "patty": (("lentil", 2, 20), ("chicken", 4, 33), ("beef", 6, 48), ("wagyu", 12, 55)),
    "topping": (("lettuce", 1, 5), ("cheese", 2, 19), ("avocado", 3, 17), ("truffle", 8, 30)),
}


class Burger(Space, Accounted):
    """Bread, patty and topping, four of each: 64 burgers for 4 to 29, the tastiest of all for 24.

    `sartor.costs.price` gives the price and the evaluator `synthetic` with `metric = "taste"` the taste. `build` gives
    a layer with a single weight and a bias, since a space must build something.
    """

    def __init__(self) -> None:
        self.choices = tuple(Choice(layer, tuple(name for name, *_ in menu)) for layer, menu in _MENU.items())
        self.input_shape = (1,)

    def build(self, arch: Arch) -> nn.Module:  # noqa: ARG002 - all burgers are the same network
        return nn.Linear(1, 1)

    def key(self, arch: Arch) -> str:
        return " + ".join(str(c.options[a]) for c, a in zip(self.choices, arch, strict=True))

    def account(self, metric: str) -> Tables | None:
        nothing = Tables.zeros(self.choices)
        network = {"macs": 1.0, "params": 2.0}
        if metric in network:
            return Tables(nothing.unary, {}, network[metric])
        if metric not in ("price", "taste"):
            return None
        column = ("price", "taste").index(metric) + 1
        return Tables(
            tuple(torch.tensor([float(item[column]) for item in menu], dtype=torch.float64) for menu in _MENU.values())
        )

    def steps(self) -> Sequence[Tables]:
        return (Tables(Tables.zeros(self.choices).unary, {}, 2.0),)

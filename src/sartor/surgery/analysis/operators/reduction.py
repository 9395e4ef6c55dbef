"""Sums and means over dimensions; what compares the entries of a dimension keeps them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx

from sartor.surgery.analysis.operators.rule import Rule
from sartor.surgery.analysis.tracker import Dims, Tracker, argument, blame, operator_name, tensor


def reduced(node: fx.Node) -> tuple[int, ...]:
    """The dimensions that the node reduces."""
    x = tensor(node, 0)
    rank, place = x.meta["val"].dim(), 2 if operator_name(node) == "linalg_vector_norm" else 1
    value = argument(node, place, "dim")
    if operator_name(node) == "norm":
        value = argument(node, 2, "dim")
    if isinstance(value, bool) or value is None or value == []:  # var(x, unbiased)
        return tuple(range(rank))
    return tuple(sorted(d % rank for d in ([value] if isinstance(value, int) else value)))


def summed(t: Tracker, node: fx.Node) -> Any:
    """Channels that are summed up may go: each is a term."""
    x = tensor(node, 0)
    gone, dims = reduced(node), t.dims(x)
    value = node.meta["val"]
    first = value if isinstance(value, Tensor) else value[0]
    if first.dim() == len(dims):
        kept: Dims = [None if d in gone else dim for d, dim in enumerate(dims)]
    else:
        kept = [dim for d, dim in enumerate(dims) if d not in gone]
    return kept if isinstance(value, Tensor) else [kept] * len(value)


def compared(t: Tracker, node: fx.Node) -> Any:
    """The largest entry, say: removing another one than the largest would not be the same as zeroing it."""
    x = tensor(node, 0)
    t.fix(x, reduced(node), f"compared by {blame(node)}")
    return summed(t, node)


def along(t: Tracker, node: fx.Node) -> Dims:
    """Softmax and cumulative sums: every entry of a dimension matters to the others."""
    x = tensor(node, 0)
    rank = len(t.shape(x))
    t.fix(x, [int(argument(node, 1, "dim")) % rank], f"related to each other by {blame(node)}")
    return t.dims(x)


def mixes(node: fx.Node) -> Sequence[tuple[fx.Node, tuple[int, ...]]]:
    """The dimensions summed up."""
    x = tensor(node, 0)
    return ((x, reduced(node)),)


RULES = {
    **dict.fromkeys(
        ["sum", "mean", "var", "std", "var_mean", "std_mean", "linalg_vector_norm", "norm"], Rule(summed, mixes=mixes)
    ),
    **dict.fromkeys(
        [
            "amax",
            "amin",
            "max",
            "min",
            "prod",
            "argmax",
            "argmin",
            "any",
            "all",
            "logsumexp",
            "median",
            "mode",
            "kthvalue",
        ],
        Rule(compared),
    ),
    **dict.fromkeys(
        ["softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum", "cumprod", "sort", "argsort"], Rule(along)
    ),
}

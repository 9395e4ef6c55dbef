"""Sums and means over dimensions; what compares the entries of a dimension keeps them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx

from sartor.surgery.analysis.operators.rule import Rule, named, serve
from sartor.surgery.analysis.tracker import Dims, Tracker, blame, operator_name, tensor


def reduced(node: fx.Node) -> tuple[int, ...]:
    """The dimensions that the node reduces."""
    rank = tensor(node, 0).meta["val"].dim()
    try:
        value = named(node, "dim")
    except LookupError:  # all of them: `max.default`, `var.default`
        value = None
    if value is None or value == []:
        return tuple(range(rank))
    return tuple(sorted(d % max(rank, 1) for d in ([value] if isinstance(value, int) else value)))


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


def normed(t: Tracker, node: fx.Node) -> Any:
    """Norms: each entry is a term, but for those of negative order, where a zero is not nothing."""
    power = named(node, "ord" if operator_name(node) == "linalg_vector_norm" else "p")
    return compared(t, node) if power is not None and float(power) < 0 else summed(t, node)


def along(t: Tracker, node: fx.Node) -> Any:
    """Softmax, sorting and cumulative sums: every entry of a dimension matters to the others."""
    x, value = tensor(node, 0), node.meta["val"]
    rank = len(t.shape(x))
    if rank:
        t.fix(x, [int(named(node, "dim")) % rank], f"related to each other by {blame(node)}")
    return t.dims(x) if isinstance(value, Tensor) else [t.dims(x) for _ in value]


def mixes(node: fx.Node) -> Sequence[tuple[fx.Node, tuple[int, ...]]]:
    """The dimensions summed up."""
    x = tensor(node, 0)
    return ((x, reduced(node)),)


RULES = {
    **serve(
        Rule(summed, mixes=mixes),
        """sum sum.dim_IntList mean mean.dim var var.dim var.correction std std.dim std.correction var_mean var_mean.dim
        var_mean.correction std_mean std_mean.dim std_mean.correction""",
    ),
    **serve(
        Rule(normed, mixes=mixes),
        "linalg_vector_norm norm.Scalar norm.ScalarOpt_dim norm.ScalarOpt_dtype norm.ScalarOpt_dim_dtype",
    ),
    **serve(
        Rule(compared),
        """amax amin max max.dim min min.dim prod prod.dim_int argmax argmin any any.dim any.dims all all.dim all.dims
        logsumexp median median.dim mode kthvalue""",
    ),
    **serve(
        Rule(along),
        """softmax.int _softmax log_softmax.int _log_softmax cumsum cumprod sort sort.stable argsort argsort.stable""",
    ),
}

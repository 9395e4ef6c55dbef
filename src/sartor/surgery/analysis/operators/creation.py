"""Operators that make tensors of constants, as large as whatever they meet."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from sartor.surgery.analysis.operators.rule import Call, Rule, Sizes, replaced, serve
from sartor.surgery.analysis.tracker import Dims, Tracker, argument, operator_name, tensor


def alike(t: Tracker, node: fx.Node) -> Dims:
    """All entries are alike."""
    return [t.units.fresh(n) if n > 1 else None for n in t.shape(node)]


def numbered(t: Tracker, node: fx.Node) -> Dims:
    """Entries that depend on their place."""
    return [None] * len(t.shape(node))


def one_hot(t: Tracker, node: fx.Node) -> Dims:
    """A new last dimension per number."""
    x = tensor(node, 0)
    return [*t.dims(x), None]


def meshgrid(t: Tracker, node: fx.Node) -> list[Dims]:
    """Every line along a dimension of its own."""
    lines: Sequence[fx.Node] = node.args[0]  # type: ignore[assignment]
    dims = [t.dim(x, 0) if t.shape(x) else None for x in lines]
    if node.kwargs.get("indexing", "ij") == "xy":
        dims[:2] = dims[1::-1]
    return [list(dims) for _ in lines]


def resize(sizes: Sizes, node: fx.Node) -> Call:
    """The shape."""
    at = 1 if operator_name(node).startswith("new_") else 0
    assert argument(node, at, "size") is not None
    return replaced(
        node, at, "size", [sizes.scale(n, d) for n, d in zip(sizes.shape(node), sizes.dims(node), strict=True)]
    )


RULES = {
    **serve(
        Rule(alike, resize),
        "zeros ones full empty.memory_format rand randn new_zeros new_ones new_full new_empty",
    ),
    **serve(
        Rule(numbered),
        """arange arange.start arange.start_step linspace linspace.Tensor_Tensor linspace.Tensor_Scalar
        linspace.Scalar_Tensor eye eye.m scalar_tensor tril_indices triu_indices""",
    ),
    **serve(Rule(one_hot), "one_hot"),
    **serve(Rule(meshgrid), "meshgrid meshgrid.indexing"),
}

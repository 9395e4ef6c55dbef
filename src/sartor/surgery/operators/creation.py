"""Operators that make tensors of constants, as large as whatever they meet."""

from __future__ import annotations

from torch import fx

from sartor.surgery.operators.rule import Call, Rule, Sizes, replaced
from sartor.surgery.tracker import Dims, Tracker, argument, operator_name


def alike(t: Tracker, node: fx.Node) -> Dims:
    """All entries are alike."""
    return [t.units.fresh(n) if n > 1 else None for n in t.shape(node)]


def numbered(t: Tracker, node: fx.Node) -> Dims:
    """Entries that depend on their place."""
    return [None] * len(t.shape(node))


def resize(sizes: Sizes, node: fx.Node) -> Call:
    """The shape."""
    at = 1 if operator_name(node).startswith("new_") else 0
    assert argument(node, at, "size") is not None
    return replaced(node, at, "size", [sizes.scale(n, d) for n, d in zip(sizes.shape(node), sizes.dims(node), strict=True)])


RULES = {
    **dict.fromkeys("zeros ones full empty rand randn new_zeros new_ones new_full new_empty".split(), Rule(alike, resize)),
    **dict.fromkeys("arange linspace eye scalar_tensor tensor tril_indices triu_indices one_hot".split(), Rule(numbered)),
}

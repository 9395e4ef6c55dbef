"""Matrix products: linear layers, matmul, einsum."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from sartor.core import products
from sartor.surgery.analysis.operators.rule import Rule, serve
from sartor.surgery.analysis.tracker import Birth, Dims, Tracker, argument, blame, tensor
from sartor.surgery.analysis.units import Dim


def linear(t: Tracker, node: fx.Node) -> Dims:
    """`x @ weight.T + bias`."""
    x, weight, bias = tensor(node, 0), tensor(node, 1), argument(node, 2, "bias")
    t.tie(weight, 1, t.dim(x, len(t.shape(x)) - 1))
    out = t.dim(weight, 0)
    if isinstance(bias, fx.Node):
        out = t.tie(bias, 0, out)
    if out is not None:
        t.births.append(Birth(node, weight, out))
    return [*t.dims(x)[:-1], out]


def matmul(t: Tracker, node: fx.Node) -> Dims:
    """Products of (batches of) matrices and vectors."""
    a, b = tensor(node, 0), tensor(node, 1)
    return _product(t, node, a, b)


def plus_product(t: Tracker, node: fx.Node) -> Dims:
    """`addmm`, `baddbmm`: a term and a product."""
    term, a, b = node.args[:3]
    assert isinstance(term, fx.Node)
    assert isinstance(a, fx.Node)
    assert isinstance(b, fx.Node)
    dims = _product(t, node, a, b)
    return t.sums([dims, t.dims(term)], [t.shape(node), t.shape(term)], t.shape(node), f"terms of {blame(node)}")


def _product(t: Tracker, node: fx.Node, a: fx.Node, b: fx.Node) -> Dims:
    rows, columns = len(t.shape(a)), len(t.shape(b))
    inner = 0 if columns == 1 else columns - 2
    t.tie(b, inner, t.dim(a, rows - 1), f"the sum inside {blame(node)}")
    out = t.shape(node)
    leading = len(out) - (rows > 1) - (columns > 1)
    stacked = t.sums(
        [t.dims(a)[: max(0, rows - 2)], t.dims(b)[: max(0, columns - 2)]],
        [t.shape(a)[: max(0, rows - 2)], t.shape(b)[: max(0, columns - 2)]],
        out[:leading],
        f"batches of {blame(node)}",
    )
    return [*stacked, *([t.dim(a, rows - 2)] if rows > 1 else []), *([t.dim(b, columns - 1)] if columns > 1 else [])]


def einsum(t: Tracker, node: fx.Node) -> Dims:
    """Every letter is one dimension, equal wherever it stands."""
    terms, result = _letters(node)
    operands: Sequence[fx.Node] = node.args[1]  # type: ignore[assignment]
    found: dict[str, Dim] = {}
    for operand, letters in zip(operands, terms, strict=True):
        shape = t.shape(operand)
        for d, letter in enumerate(letters):
            if shape[d] > 1:
                known = letter in found
                found[letter] = t.tie(operand, d, found[letter]) if known else t.dim(operand, d)
    return [found.get(letter) for letter in result]


def _letters(node: fx.Node) -> tuple[list[str], str]:
    """The letters of every operand and of the result."""
    return products.letters(str(node.args[0]), [o.meta["val"].dim() for o in node.args[1]])  # type: ignore[union-attr]


def mixes_last(node: fx.Node) -> Sequence[tuple[fx.Node, tuple[int, ...]]]:
    """The first operand's last dimension is summed up."""
    a, b = tensor(node, 0), tensor(node, 1)
    found = [(a, (a.meta["val"].dim() - 1,))]
    if "linear" not in str(node.target):
        found.append((b, (max(0, b.meta["val"].dim() - 2),)))
    return found


def mixes_product(node: fx.Node) -> Sequence[tuple[fx.Node, tuple[int, ...]]]:
    """The factors' inner dimension is summed up."""
    a, b = tensor(node, 1), tensor(node, 2)
    return [(a, (a.meta["val"].dim() - 1,)), (b, (b.meta["val"].dim() - 2,))]


def mixes_letters(node: fx.Node) -> Sequence[tuple[fx.Node, tuple[int, ...]]]:
    """The letters that the result lacks are summed up."""
    terms, result = _letters(node)
    operands: Sequence[fx.Node] = node.args[1]  # type: ignore[assignment]
    return [
        (operand, tuple(d for d, letter in enumerate(letters) if letter not in result))
        for operand, letters in zip(operands, terms, strict=True)
    ]


RULES = {
    **serve(Rule(linear, mixes=mixes_last), "linear"),
    **serve(Rule(matmul, mixes=mixes_last), "matmul mm bmm mv dot"),
    **serve(Rule(plus_product, mixes=mixes_product), "addmm baddbmm"),
    **serve(Rule(einsum, mixes=mixes_letters), "einsum"),
}

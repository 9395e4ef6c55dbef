"""Scaled dot-product attention."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from sartor.surgery.analysis.operators.rule import Call, Rule, Sizes, serve
from sartor.surgery.analysis.tracker import Dims, Tracker, argument, blame, tensor


def attend(t: Tracker, node: fx.Node) -> Dims:
    """Queries `(..., n, d)`, keys `(..., m, d)`, values `(..., m, e)`, mask that broadcasts to `(..., n, m)`."""
    q, k, v = node.args[:3]
    assert isinstance(q, fx.Node)
    assert isinstance(k, fx.Node)
    assert isinstance(v, fx.Node)
    why = f"heads of {blame(node)}"
    t.tie(k, -1, t.dim(q, len(t.shape(q)) - 1), why)
    tokens = t.tie(v, -2, t.dim(k, len(t.shape(k)) - 2), why)
    t.units.pin(tokens, f"tokens of {blame(node)}")
    leading = t.shape(node)[:-2]
    if argument(node, 7, "enable_gqa", False):
        for x in (q, k, v):
            t.fix(x, range(1, len(leading)), f"shared heads of {blame(node)}")
    parts = [q, k, v]
    dims = t.sums([t.dims(x)[:-2] for x in parts], [t.shape(x)[:-2] for x in parts], leading, why)
    mask = argument(node, 3, "attn_mask")
    if isinstance(mask, fx.Node):
        full = (*leading, t.shape(q)[-2], t.shape(k)[-2])
        dims = t.sums([[*dims, t.dim(q, len(t.shape(q)) - 2), None], t.dims(mask)], [full, t.shape(mask)], full, why)[
            : len(leading)
        ]
    return [*dims, t.dim(q, len(t.shape(q)) - 2), t.dim(v, len(t.shape(v)) - 1)]


def resize(sizes: Sizes, node: fx.Node) -> Call:
    """The scale stays that of the whole network: the products are sums over fewer channels, not other ones."""
    q = tensor(node, 0)
    kwargs = dict(node.kwargs)
    width = sizes.shape(q)[-1]
    if argument(node, 6, "scale") is None and sizes.scale(width, sizes.dims(q)[-1]) != width:
        kwargs["scale"] = width**-0.5
    return Call(node.target, node.args, kwargs)  # type: ignore[arg-type]


def mixes(node: fx.Node) -> Sequence[tuple[fx.Node, tuple[int, ...]]]:
    """Queries and keys are multiplied and summed up."""
    return [(x, (x.meta["val"].dim() - 1,)) for x in node.args[:2] if isinstance(x, fx.Node)]


RULES = serve(Rule(attend, resize, mixes), "scaled_dot_product_attention")

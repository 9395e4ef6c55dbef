"""Operators that treat every entry alike: their inputs broadcast, and what broadcasts is equal."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from sartor.surgery.analysis.operators.rule import Rule, serve
from sartor.surgery.analysis.tracker import Dims, Tracker, blame, tensors


def pointwise(t: Tracker, node: fx.Node) -> Dims:
    """Sums, products, activations, comparisons, `where`."""
    inputs, out = tensors(node), t.shape(node)
    plain = [i for i in inputs if not t.is_weight(i)]
    dims: Dims = (
        t.sums([t.dims(i) for i in plain], [t.shape(i) for i in plain], out, f"terms of {blame(node)} that differ")
        if plain
        else [None] * len(out)
    )
    for weight in (i for i in inputs if t.is_weight(i)):
        shape = t.shape(weight)
        for d in range(-len(shape), 0):
            if shape[d] == 1:
                continue
            covered = any(len(t.shape(i)) >= -d and t.shape(i)[d] == out[d] for i in plain)
            dims[d] = t.tie(weight, d, dims[d]) if covered or dims[d] is not None else t.dim(weight, d)
    return dims


def prelu(t: Tracker, node: fx.Node) -> Dims:
    """One slope for all channels, or one for each (dimension 1)."""
    x, slope = node.args[0], node.args[1]
    assert isinstance(x, fx.Node)
    assert isinstance(slope, fx.Node)
    dims = t.dims(x)
    if len(dims) > 1 and t.shape(slope) == (t.shape(x)[1],):
        dims[1] = t.tie(slope, 0, dims[1])
    return dims


def same(t: Tracker, node: fx.Node) -> Any:
    """The output (or each of several) is the first input, as far as channels are concerned."""
    dims, value = t.dims(tensors(node)[0]), node.meta["val"]
    return dims if isinstance(value, Tensor) else [list(dims) for _ in value]


POINTWISE = Rule(pointwise)
"""Also of every operator that torch calls pointwise (`torch.Tag.pointwise`, which stands at overloads)."""
SAME = Rule(same)

RULES = {
    **serve(
        POINTWISE,
        """multiply.Tensor multiply.Scalar divide.Tensor divide.Scalar divide.Tensor_mode divide.Scalar_mode
        true_divide.Scalar subtract.Tensor subtract.Scalar rsub.Tensor floor_divide floor_divide.Tensor
        floor_divide.Scalar masked_fill.Scalar masked_fill.Tensor where.ScalarOther where.ScalarSelf where.Scalar
        xlogy.Scalar_Other copy __and__.Tensor __and__.Scalar __or__.Tensor __or__.Scalar __xor__.Tensor __xor__.Scalar
        bernoulli.Tensor""",
    ),
    **serve(
        SAME,
        """relu6 gelu mish hardswish log_sigmoid rrelu dropout feature_dropout alpha_dropout feature_alpha_dropout
        native_dropout bernoulli bernoulli.p bernoulli.float contiguous detach alias to.device to.dtype to.other
        to.dtype_layout _to_copy type_as zeros_like ones_like full_like empty_like rand_like randn_like lift_fresh_copy
        lift_fresh requires_grad fill.Scalar fill.Tensor zero""",
    ),
    **serve(Rule(prelu), "prelu"),
}

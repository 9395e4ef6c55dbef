"""Operators that treat every entry alike: their inputs broadcast, and what broadcasts is equal."""

from __future__ import annotations

from torch import fx

from sartor.surgery.analysis.operators.rule import Rule
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


def same(t: Tracker, node: fx.Node) -> Dims:
    """The output is the first input, as far as channels are concerned."""
    return t.dims(tensors(node)[0])


POINTWISE = Rule(pointwise)
SAME = Rule(same)

RULES = {
    **dict.fromkeys(
        [
            "add",
            "sub",
            "rsub",
            "mul",
            "div",
            "pow",
            "maximum",
            "minimum",
            "where",
            "masked_fill",
            "clamp",
            "clip",
            "clamp_min",
            "clamp_max",
            "lerp",
            "addcmul",
            "addcdiv",
            "copy",
            "multiply",
            "true_divide",
            "subtract",
            "divide",
            "floor_divide",
            "remainder",
            "logical_and",
            "logical_or",
            "__and__",
            "__or__",
            "fmod",
            "atan2",
            "hypot",
            "xlogy",
        ],
        POINTWISE,
    ),
    **dict.fromkeys(
        [
            "relu",
            "relu6",
            "gelu",
            "silu",
            "mish",
            "hardtanh",
            "hardswish",
            "hardsigmoid",
            "sigmoid",
            "tanh",
            "leaky_relu",
            "elu",
            "selu",
            "celu",
            "softplus",
            "softsign",
            "hardshrink",
            "softshrink",
            "tanhshrink",
            "logsigmoid",
            "log_sigmoid",
            "threshold",
            "rrelu",
            "exp",
            "log",
            "log2",
            "log1p",
            "expm1",
            "sqrt",
            "rsqrt",
            "abs",
            "neg",
            "reciprocal",
            "square",
            "sign",
            "erf",
            "floor",
            "ceil",
            "round",
            "sin",
            "cos",
            "dropout",
            "feature_dropout",
            "alpha_dropout",
            "feature_alpha_dropout",
            "native_dropout",
            "bernoulli",
            "clone",
            "contiguous",
            "detach",
            "alias",
            "to",
            "_to_copy",
            "type_as",
            "float",
            "half",
            "double",
            "bfloat16",
            "int",
            "long",
            "bool",
            "zeros_like",
            "ones_like",
            "full_like",
            "empty_like",
            "rand_like",
            "randn_like",
            "nan_to_num",
            "lift_fresh_copy",
            "lift_fresh",
            "detach_",
            "requires_grad",
            "fill",
            "zero",
            "logical_not",
            "isnan",
        ],
        SAME,
    ),
    "prelu": Rule(prelu),
}

"""Convolutions, transposed ones included."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from sartor.surgery.analysis.operators.rule import Call, Rule, Sizes, replaced, serve
from sartor.surgery.analysis.tracker import Birth, Dims, Tracker, argument, blame, tensor
from sartor.surgery.analysis.units import Dim

_GROUPS = 6
"""Place of the number of groups among the arguments, of all of them."""


def convolution(t: Tracker, node: fx.Node) -> Dims:
    """A dense, grouped or depthwise convolution."""
    return _convolve(t, node, transposed=False)


def transposed(t: Tracker, node: fx.Node) -> Dims:
    """A transposed convolution: its weight has the input channels first."""
    return _convolve(t, node, transposed=True)


def _convolve(t: Tracker, node: fx.Node, *, transposed: bool) -> Dims:
    x, weight, bias = tensor(node, 0), tensor(node, 1), argument(node, 2, "bias")
    groups = int(argument(node, _GROUPS, "groups", 1))
    spatial = len(t.shape(weight)) - 2
    channel = len(t.shape(x)) - spatial - 1
    t.fix(x, range(channel + 1, channel + 1 + spatial), f"positions of {blame(node)}")
    t.fix(weight, range(2, 2 + spatial), f"kernel of {blame(node)}")
    c_in, c_out = t.shape(x)[channel], t.shape(node)[channel]
    into, out_of = (0, 1) if transposed else (1, 0)
    here = t.dim(x, channel)
    if groups == 1:
        t.tie(weight, into, here)
        out = t.dim(weight, out_of)
    else:
        out = _grouped(t, node, weight, here, (groups, c_in // groups, c_out // groups), transposed=transposed)
    if isinstance(bias, fx.Node):
        out = t.tie(bias, 0, out)
    if out is not None:
        t.births.append(Birth(node, weight, out))
    return [*(t.dim(x, d) for d in range(channel)), out, *[None] * spatial]


def _grouped(
    t: Tracker, node: fx.Node, weight: fx.Node, here: Dim, sizes: tuple[int, int, int], *, transposed: bool
) -> Dim:
    groups, inputs, outputs = sizes
    why = f"groups of {blame(node)}"
    if inputs == outputs == 1:
        return t.tie(weight, 0, here)
    whole, part = t.units.split(here, (groups, inputs), why)
    new = t.units.fresh(outputs) if outputs > 1 else None
    out = t.units.merge([whole, new], (groups, outputs))
    if transposed:  # (c_in, c_out / groups, ...)
        t.tie(weight, 0, t.units.merge([whole, part], (groups, inputs)))
        t.tie(weight, 1, new)
    else:
        t.tie(weight, 1, part)
        out = t.tie(weight, 0, out)
    return out


def resize(sizes: Sizes, node: fx.Node) -> Call:
    """The number of groups that are left."""
    groups = int(argument(node, _GROUPS, "groups", 1))
    if groups == 1:
        return replaced(node, 0, "input", node.args[0])
    x, weight = tensor(node, 0), tensor(node, 1)
    channel = len(sizes.shape(x)) - len(sizes.shape(weight)) + 1
    transposed = "transpose" in str(node.target)
    c = sizes.shape(x)[channel]
    kept = sizes.scale(c, sizes.dims(x)[channel])
    if transposed:
        out = sizes.scale(sizes.shape(node)[channel], sizes.dims(node)[channel])
        per = sizes.scale(sizes.shape(weight)[1], sizes.dims(weight)[1])
        return replaced(node, _GROUPS, "groups", out // per)
    per = sizes.scale(sizes.shape(weight)[1], sizes.dims(weight)[1])
    return replaced(node, _GROUPS, "groups", kept // per)


def mixes(node: fx.Node) -> Sequence[tuple[fx.Node, tuple[int, ...]]]:
    """A convolution adds up its input channels."""
    x, weight = tensor(node, 0), tensor(node, 1)
    if int(argument(node, _GROUPS, "groups", 1)) == int(x.meta["val"].shape[1]):
        return ()
    return ((x, (x.meta["val"].dim() - weight.meta["val"].dim() + 1,)),)


RULES = {
    **serve(Rule(convolution, resize, mixes), "conv1d conv2d conv3d conv1d.padding conv2d.padding conv3d.padding"),
    **serve(Rule(transposed, resize, mixes), "conv_transpose1d conv_transpose2d.input conv_transpose3d.input"),
}

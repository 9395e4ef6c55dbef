"""Normalisations. Statistics over channels are those of the channels that are left."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from sartor.surgery.analysis.operators.rule import Call, Rule, Sizes, replaced, serve
from sartor.surgery.analysis.tracker import Dims, Tracker, argument, blame, number, tensor


def batch_norm(t: Tracker, node: fx.Node) -> Dims:
    """One mean and variance per channel (dimension 1)."""
    x = tensor(node, 0)
    dims = t.dims(x)
    for weight in node.args[1:5]:
        if isinstance(weight, fx.Node):
            dims[1] = t.tie(weight, 0, dims[1])
    return dims


def mixes_others(node: fx.Node) -> Sequence[tuple[fx.Node, tuple[int, ...]]]:
    """Statistics of the tensor itself (of a weight that is standardised, say) run over all dimensions but the first."""
    x = node.args[0]
    assert isinstance(x, fx.Node)
    own = argument(node, 5, "training", False)
    return ((x, tuple(d for d in range(x.meta["val"].dim()) if d != 1)),) if own else ()


def layer_norm(t: Tracker, node: fx.Node) -> Dims:
    """Statistics over the last dimensions."""
    x, shape = tensor(node, 0), node.args[1]
    dims, last = t.dims(x), len(shape)  # type: ignore[arg-type]
    for weight in (argument(node, 2, "weight"), argument(node, 3, "bias")):
        if isinstance(weight, fx.Node):
            for d in range(-last, 0):
                dims[d] = t.tie(weight, d, dims[d])
    return dims


def resize_shape(sizes: Sizes, node: fx.Node) -> Call:
    """The normalised shape."""
    x, shape = tensor(node, 0), node.args[1]
    dims = sizes.dims(x)[-len(shape) :]  # type: ignore[arg-type]
    return replaced(node, 1, "normalized_shape", [sizes.scale(n, d) for n, d in zip(shape, dims, strict=True)])  # type: ignore[arg-type]


def group_norm(t: Tracker, node: fx.Node) -> Dims:
    """Statistics over groups of channels: whole groups can go, or as many channels of each."""
    x, groups = tensor(node, 0), node.args[1]
    assert isinstance(groups, int)
    dims, channels = t.dims(x), t.shape(x)[1]
    if groups > 1:
        whole, part = t.units.split(dims[1], (groups, channels // groups), f"groups of {blame(node)}")
        t.inner[node] = whole
        dims[1] = t.units.merge([whole, part], (groups, channels // groups))
    for weight in (argument(node, 2, "weight"), argument(node, 3, "bias")):
        if isinstance(weight, fx.Node):
            dims[1] = t.tie(weight, 0, dims[1])
    return dims


def resize_groups(sizes: Sizes, node: fx.Node) -> Call:
    """The number of groups that are left."""
    return replaced(node, 1, "num_groups", sizes.scale(number(node, 1), sizes.inner(node)))


def mixes(node: fx.Node) -> Sequence[tuple[fx.Node, tuple[int, ...]]]:
    """Layer norm sums up its last dimensions."""
    x, shape = tensor(node, 0), node.args[1]
    rank = x.meta["val"].dim()
    return ((x, tuple(range(rank - len(shape), rank))),)  # type: ignore[arg-type]


def mixes_channels(node: fx.Node) -> Sequence[tuple[fx.Node, tuple[int, ...]]]:
    """Group norm sums up channels."""
    x = tensor(node, 0)
    return ((x, (1,)),)


RULES = {
    **serve(Rule(batch_norm, mixes=mixes_others), "batch_norm"),
    **serve(Rule(batch_norm), "instance_norm"),
    **serve(Rule(layer_norm, resize_shape, mixes), "layer_norm rms_norm"),
    **serve(Rule(group_norm, resize_groups, mixes_channels), "group_norm"),
}

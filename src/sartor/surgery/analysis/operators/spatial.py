"""Pooling, resampling, padding, and what moves channels to positions and back."""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor, fx

from sartor.surgery.analysis.operators.rule import Call, Rule, Sizes, replaced, serve
from sartor.surgery.analysis.tracker import Dims, Tracker, argument, blame, number, numbers, operator_name, tensor
from sartor.surgery.analysis.units import Dim, stack


def resample(t: Tracker, node: fx.Node) -> Any:
    """Pooling and interpolation: channels pass, positions stay."""
    x = tensor(node, 0)
    rank = int(next((c for c in operator_name(node) if c in "123"), "2"))
    shape = t.shape(x)
    t.fix(x, range(len(shape) - rank, len(shape)), f"positions of {blame(node)}")
    dims: Dims = [*t.dims(x)[: len(shape) - rank], *[None] * rank]
    value = node.meta["val"]
    return dims if isinstance(value, Tensor) else [dims] * len(value)


def pad(t: Tracker, node: fx.Node) -> Dims:
    """Zero channels that are put around others are units of their own, as many as are needed to fit."""
    x, margins = node.args[0], list(node.args[1])  # type: ignore[arg-type]
    assert isinstance(x, fx.Node)
    dims, rank = t.dims(x), len(t.shape(x))
    mode = argument(node, 2, "mode", "constant") if operator_name(node) == "pad" else "constant"
    for i in range(len(margins) // 2):
        d, before, after = rank - 1 - i, int(margins[2 * i]), int(margins[2 * i + 1])
        if not before and not after:
            continue
        if dims[d] is None or mode != "constant" or min(before, after) < 0:
            t.fix(x, [d], f"padding of {blame(node)}")
            dims[d] = None
            continue
        sizes = (before, t.shape(x)[d], after)
        dims[d] = stack([t.units.fresh(before), dims[d], t.units.fresh(after)], sizes)
    return dims


def resize_pad(sizes: Sizes, node: fx.Node) -> Call:
    """The number of zero channels."""
    x, margins = node.args[0], list(node.args[1])  # type: ignore[arg-type]
    assert isinstance(x, fx.Node)
    rank = len(sizes.shape(x))
    for i in range(len(margins) // 2):
        dim, width = sizes.dims(node)[rank - 1 - i], sizes.shape(node)[rank - 1 - i]
        if dim is not None and (margins[2 * i] or margins[2 * i + 1]):
            before, after = int(margins[2 * i]), int(margins[2 * i + 1])
            margins[2 * i] = sizes.count(dim, 0, before)
            margins[2 * i + 1] = sizes.count(dim, width - after, width)
    return replaced(node, 1, "pad", margins)


def pixel_shuffle(t: Tracker, node: fx.Node) -> Dims:
    """Channels `(c, r, r)` become positions; the `r` stay."""
    x, factor = node.args[0], number(node, 1)
    assert isinstance(x, fx.Node)
    dims, shape = t.dims(x), t.shape(x)
    channel = len(shape) - 3
    parts = t.units.split(dims[channel], (shape[channel] // factor**2, factor, factor), f"{blame(node)}")
    for part in parts[1:]:
        t.units.pin(part, f"positions made by {blame(node)}")
    return [*dims[:channel], parts[0], None, None]


def pixel_unshuffle(t: Tracker, node: fx.Node) -> Dims:
    """Positions become channels `(c, r, r)`."""
    x, factor = node.args[0], number(node, 1)
    assert isinstance(x, fx.Node)
    dims, shape = t.dims(x), t.shape(x)
    channel = len(shape) - 3
    wide = t.units.merge([dims[channel], None], (shape[channel], factor**2))
    return [*dims[:channel], wide, None, None]


def im2col(t: Tracker, node: fx.Node) -> Dims:
    """Patches: channels and places of the kernel in one dimension."""
    x, kernel = tensor(node, 0), numbers(node, 1)
    dims, shape = t.dims(x), t.shape(x)
    channel = len(shape) - 3
    area = prod(kernel) if len(kernel) > 1 else kernel[0] ** 2
    return [*dims[:channel], t.units.merge([dims[channel], None], (shape[channel], area)), None]


def col2im(t: Tracker, node: fx.Node) -> Dims:
    """Patches back to a feature map."""
    x = tensor(node, 0)
    dims, shape, out = t.dims(x), t.shape(x), t.shape(node)
    channel = len(shape) - 2
    c = out[channel]
    parts: list[Dim] = t.units.split(dims[channel], (c, shape[channel] // c), f"{blame(node)}")
    t.units.pin(parts[1], f"places of the kernel of {blame(node)}")
    return [*dims[:channel], parts[0], None, None]


def affine_grid(t: Tracker, node: fx.Node) -> Dims:
    """Places to look at, one grid per transformation."""
    theta = tensor(node, 0)
    t.fix(theta, (1, 2), f"a transformation for {blame(node)}")
    return [t.dims(theta)[0], *[None] * (len(t.shape(node)) - 1)]


def resize_affine_grid(sizes: Sizes, node: fx.Node) -> Call:
    """The number of grids."""
    wanted: list[int] = list(node.args[1])  # type: ignore[arg-type]
    return replaced(node, 1, "size", [sizes.scale(wanted[0], sizes.dims(node)[0]), *wanted[1:]])


def sampled(t: Tracker, node: fx.Node) -> Dims:
    """Channels pass; places are looked up."""
    x, grid = tensor(node, 0), tensor(node, 1)
    rank = len(t.shape(x))
    t.fix(x, range(2, rank), f"places of {blame(node)}")
    t.fix(grid, range(1, rank), f"places of {blame(node)}")
    batch, channels, *_ = t.dims(x)
    return [t.tie(grid, 0, batch), channels, *[None] * (rank - 2)]


RULES = {
    **serve(
        Rule(resample),
        """max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d
        avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d
        adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d reflection_pad1d reflection_pad2d replication_pad1d
        replication_pad2d upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact2d
        upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa
        _upsample_bicubic2d_aa upsample_nearest1d.vec upsample_nearest2d.vec upsample_nearest3d.vec
        _upsample_nearest_exact2d.vec upsample_linear1d.vec upsample_bilinear2d.vec upsample_trilinear3d.vec
        upsample_bicubic2d.vec _upsample_bilinear2d_aa.vec _upsample_bicubic2d_aa.vec""",
    ),
    **serve(Rule(pad, resize_pad), "pad constant_pad_nd"),
    **serve(Rule(affine_grid, resize_affine_grid), "affine_grid_generator"),
    **serve(Rule(sampled), "grid_sampler grid_sampler_2d grid_sampler_3d"),
    **serve(Rule(pixel_shuffle), "pixel_shuffle"),
    **serve(Rule(pixel_unshuffle), "pixel_unshuffle"),
    **serve(Rule(im2col), "im2col"),
    **serve(Rule(col2im), "col2im"),
}

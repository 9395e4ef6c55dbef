"""Operators that take parts of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import fx

from sartor.surgery.analysis.operators.rule import Call, Rule, Sizes, replaced, serve
from sartor.surgery.analysis.tracker import Dims, Tracker, argument, blame, number, operator_name, tensor
from sartor.surgery.analysis.units import Dim


def take(t: Tracker, node: fx.Node) -> Any:
    """An entry of a tuple."""
    source, index = node.args
    assert isinstance(source, fx.Node)
    return t.of[source][index]  # type: ignore[index]


def select(t: Tracker, node: fx.Node) -> Dims:
    """One index of a dimension: it stays."""
    x = tensor(node, 0)
    dims = t.dims(x)
    d, index = number(node, 1) % len(dims), number(node, 2) % t.shape(x)[number(node, 1)]
    dim = dims.pop(d)
    if dim is not None:
        t.units.pin(dim[index : index + 1], f"picked by {blame(node)}")
    return dims


def resize_select(sizes: Sizes, node: fx.Node) -> Call:
    """Where the index is now."""
    x, d, index = tensor(node, 0), number(node, 1), number(node, 2)
    dim, size = sizes.dims(x)[d], sizes.shape(x)[d]
    return replaced(node, 2, "index", index if dim is None else sizes.count(dim, 0, index % size))


def sliced(t: Tracker, node: fx.Node) -> Dims:
    """A range of indices."""
    x = tensor(node, 0)
    dims, (d, start, stop, step) = t.dims(x), _range(node)
    dim = dims[d]
    if dim is not None and (stop - start, step) != (t.shape(x)[d], 1):
        if step != 1 or stop - start == 1:
            t.units.pin(dim[start:stop:step], f"picked by {blame(node)}")
            dims[d] = None if stop - start == 1 else dim[start:stop:step]
            if step != 1:
                t.units.pin(dim, f"picked by {blame(node)}")
        else:
            dims[d] = dim[start:stop]
    return dims


def resize_slice(sizes: Sizes, node: fx.Node) -> Call:
    """Where the range begins and ends now."""
    x = tensor(node, 0)
    d, start, stop, step = _range(node)
    dim = sizes.dims(x)[d]
    if dim is not None:
        start, stop = sizes.count(dim, 0, start), sizes.count(dim, 0, stop)
    whole = stop == sizes.shape(x)[d] and dim is None
    return Call(torch.ops.aten.slice.Tensor, (x, d, start, 2**63 - 1 if whole else stop, step), {})


def _range(node: fx.Node) -> tuple[int, int, int, int]:
    """Dimension, start, stop and step of `slice` and `narrow`."""
    x = tensor(node, 0)
    shape = x.meta["val"].shape
    d = int(argument(node, 1, "dim", 0)) % len(shape)
    size = int(shape[d])
    if operator_name(node) == "narrow":
        start = number(node, 2) % size
        return d, start, start + number(node, 3), 1
    start, stop, step = argument(node, 2, "start"), argument(node, 3, "end"), argument(node, 4, "step", 1)
    low, high, _ = slice(start, stop).indices(size)
    return d, low, max(low, high), int(step)


def split(t: Tracker, node: fx.Node) -> list[Dims]:
    """Consecutive ranges of indices."""
    x = tensor(node, 0)
    d, marks = _marks(node)
    found = []
    for start, stop in pairwise(marks):
        dims = t.dims(x)
        dim: Dim = dims[d]
        if dim is not None:
            dims[d] = dim[start:stop]
            if stop - start == 1:
                t.units.pin(dims[d], f"picked by {blame(node)}")
                dims[d] = None
        found.append(dims)
    return found


def resize_split(sizes: Sizes, node: fx.Node) -> Call:
    """The sizes of the parts."""
    x = tensor(node, 0)
    d, marks = _marks(node)
    dim = sizes.dims(x)[d]
    if dim is None:
        return replaced(node, 0, "self", x)
    parts = [sizes.count(dim, start, stop) for start, stop in pairwise(marks)]
    return Call(torch.ops.aten.split_with_sizes.default, (x, parts, d), {})


def _marks(node: fx.Node) -> tuple[int, list[int]]:
    """The dimension that is split, and where its parts begin and end."""
    at = {"split": 2, "split_with_sizes": 2, "chunk": 2, "tensor_split": 2}[operator_name(node)]
    x = tensor(node, 0)
    d = int(argument(node, at, "dim", 0)) % x.meta["val"].dim()
    marks = [0]
    for part in node.meta["val"]:
        marks.append(marks[-1] + int(part.shape[d]))
    return d, marks


def unbind(t: Tracker, node: fx.Node) -> list[Dims]:
    """Every index by itself: all stay."""
    x = tensor(node, 0)
    d = int(argument(node, 1, "dim", 0)) % len(t.shape(x))
    t.fix(x, [d], f"picked by {blame(node)}")
    dims = t.dims(x)
    del dims[d]
    return [list(dims) for _ in node.meta["val"]]


def index(t: Tracker, node: fx.Node) -> Dims:
    """Entries named by tensors: the dimensions that are looked up stay, the others pass."""
    x, names = node.args[0], list(node.args[1])  # type: ignore[arg-type]
    assert isinstance(x, fx.Node)
    at = [d for d, name in enumerate(names) if name is not None]
    t.fix(x, at, f"looked up by {blame(node)}")
    if any(isinstance(n, fx.Node) and n.meta["val"].dtype == torch.bool for n in names):
        t.fix(x, None, f"looked up by {blame(node)}")
        return [None] * len(t.shape(node))
    named = [n for n in names if isinstance(n, fx.Node)]
    for name in named:
        t.fix(name, None, f"looked up by {blame(node)}")
    dims = t.dims(x)
    rest: Dims = [dim for d, dim in enumerate(dims) if d not in at]
    new: Dims = [None] * (len(t.shape(node)) - len(rest))
    before = at[0] if at == list(range(at[0], at[-1] + 1)) else 0
    return [*rest[:before], *new, *rest[before:]]


def index_select(t: Tracker, node: fx.Node) -> Dims:
    """Indices of one dimension by a tensor."""
    x = tensor(node, 0)
    d = number(node, 1) % len(t.shape(x))
    t.fix(x, [d], f"looked up by {blame(node)}")
    dims = t.dims(x)
    dims[d] = None
    return dims


def embedding(t: Tracker, node: fx.Node) -> Dims:
    """A row of a table per number."""
    table, numbers = tensor(node, 0), tensor(node, 1)
    t.fix(table, [0], f"looked up by {blame(node)}")
    return [*t.dims(numbers), t.dim(table, 1)]


def moved(t: Tracker, node: fx.Node) -> Dims:
    """`roll` and `flip`: the dimensions concerned stay."""
    x, name = tensor(node, 0), operator_name(node)
    dims: Sequence[int] = argument(node, 1 if name == "flip" else 2, "dims", [])
    rank = len(t.shape(x))
    t.fix(x, [d % rank for d in ([dims] if isinstance(dims, int) else dims)] or None, f"moved by {blame(node)}")
    return t.dims(x)


def windows(t: Tracker, node: fx.Node) -> Dims:
    """`unfold`: overlapping ranges of one dimension, which stays; their entries come last."""
    x = tensor(node, 0)
    d = number(node, 1) % len(t.shape(x))
    t.fix(x, [d], f"overlapping parts of {blame(node)}")
    dims = t.dims(x)
    dims[d] = None
    return [*dims, None]


RULES = {
    **serve(Rule(take), "getitem"),
    **serve(Rule(select, resize_select), "select.int"),
    **serve(Rule(sliced, resize_slice), "slice.Tensor narrow"),
    **serve(
        Rule(split, resize_split),
        "split.Tensor split.sizes split split_with_sizes chunk tensor_split.sections tensor_split.indices",
    ),
    **serve(Rule(unbind), "unbind.int"),
    **serve(Rule(index), "index.Tensor"),
    **serve(Rule(index_select), "index_select"),
    **serve(Rule(embedding), "embedding"),
    **serve(Rule(moved), "roll flip"),
    **serve(Rule(windows), "unfold"),
}

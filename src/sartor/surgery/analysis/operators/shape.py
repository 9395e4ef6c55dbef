"""Operators that read a tensor's elements in another shape or order of dimensions."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, fx

from sartor.surgery.analysis.operators.rule import Call, Rule, Sizes, replaced, serve
from sartor.surgery.analysis.tracker import (
    Dims,
    Tracker,
    argument,
    blame,
    number,
    numbers,
    operator_name,
    tensor,
    tensors,
)
from sartor.surgery.analysis.units import Dim, stack


def reshape(t: Tracker, node: fx.Node) -> Dims:
    """The same elements in the same order."""
    x = tensor(node, 0)
    return t.reshape(t.dims(x), t.shape(x), t.shape(node), f"reshaped by {blame(node)}")


def reshape_like(t: Tracker, node: fx.Node) -> Dims:
    """In the shape of another tensor, which stays the same shape therefore."""
    return _like(t, node, reshape(t, node))


def expand_like(t: Tracker, node: fx.Node) -> Dims:
    """Copies, as many as another tensor has."""
    return _like(t, node, expand(t, node))


def _like(t: Tracker, node: fx.Node, dims: Dims) -> Dims:
    other = node.args[1]
    assert isinstance(other, fx.Node)
    return [t.tie(other, d, dim, f"as many by {blame(node)}") for d, dim in enumerate(dims)]


def resize_sizes(sizes: Sizes, node: fx.Node) -> Call:
    """`view(sizes)` and the like."""
    wanted: Sequence[int] = node.args[1]  # type: ignore[assignment]
    full = sizes.shape(node)
    new = [sizes.scale(full[d], dim) for d, dim in enumerate(sizes.dims(node))]
    return replaced(node, 1, "size", _open(wanted, new))


def resize_squeeze(sizes: Sizes, node: fx.Node) -> Call:
    """The dimensions of one entry by number: of a cut network, others may have a single entry too."""
    x = tensor(node, 0)
    alone = [d for d, n in enumerate(sizes.shape(x)) if n == 1]
    return Call(torch.ops.aten.squeeze.dims, (x, alone), {})


def resize_unflatten(sizes: Sizes, node: fx.Node) -> Call:
    """`unflatten(dim, sizes)`."""
    x, wanted = node.args[0], node.args[2]
    assert isinstance(x, fx.Node)
    at = number(node, 1) % len(sizes.shape(x))
    dims = sizes.dims(node)[at : at + len(wanted)]  # type: ignore[arg-type]
    full = sizes.shape(node)[at : at + len(wanted)]  # type: ignore[arg-type]
    return replaced(node, 2, "sizes", [sizes.scale(n, d) for n, d in zip(full, dims, strict=True)])


def _open(wanted: Sequence[int], new: Sequence[int]) -> list[int]:
    return [-1 if w == -1 else n for w, n in zip(wanted, new, strict=True)]


def permute(t: Tracker, node: fx.Node) -> Dims:
    """Dimensions in another order."""
    x = tensor(node, 0)
    dims = t.dims(x)
    return [dims[d] for d in order(node)]


def order(node: fx.Node) -> list[int]:
    """Which dimension of the input each one of the output is."""
    x, name = tensor(node, 0), operator_name(node)
    places = list(range(x.meta["val"].dim()))
    rank = len(places)
    if name == "permute":
        return [int(d) % rank for d in node.args[1]]  # type: ignore[union-attr, arg-type]
    if name == "numpy_T":
        return places[::-1]
    if name in ("t", "mT", "adjoint"):
        return places[:-2] + places[-2:][::-1]
    if name in ("movedim", "moveaxis"):
        source, target = ([d % rank for d in numbers(node, i)] for i in (1, 2))
        rest = iter(d for d in places if d not in source)
        return [source[target.index(d)] if d in target else next(rest) for d in places]
    first, second = number(node, 1) % rank, number(node, 2) % rank
    places[first], places[second] = places[second], places[first]
    return places


def expand(t: Tracker, node: fx.Node) -> Dims:
    """New copies along a dimension: as many as whatever they meet needs."""
    x = tensor(node, 0)
    dims, before, after = t.dims(x), t.shape(x), t.shape(node)
    new = len(after) - len(before)
    found: Dims = []
    for d, size in enumerate(after):
        grown = d < new or before[d - new] != size
        found.append(t.units.fresh(size) if grown and size > 1 else None if grown else dims[d - new])
    return found


def repeat(t: Tracker, node: fx.Node) -> Dims:
    """The whole tensor again and again."""
    x = tensor(node, 0)
    dims, before, after = t.dims(x), t.shape(x), t.shape(node)
    new = len(after) - len(before)
    found: Dims = []
    for d, size in enumerate(after):
        old = before[d - new] if d >= new else 1
        if size == old:
            found.append(dims[d - new] if d >= new else None)
        elif old == 1:
            found.append(t.units.fresh(size))
        else:
            found.append(stack([dims[d - new]] * (size // old), [old] * (size // old)))
    return found


def resize_repeat(sizes: Sizes, node: fx.Node) -> Call:
    """Copies of a single entry are counted; copies of many channels stay."""
    x, times = node.args[0], list(node.args[1])  # type: ignore[arg-type]
    assert isinstance(x, fx.Node)
    before = sizes.shape(x)
    times = [1] * (len(before) - len(times)) + times
    new = len(times) - len(before)
    for d, dim in enumerate(sizes.dims(node)):
        if d < new or before[d - new] == 1:
            times[d] = sizes.scale(int(times[d]), dim)
    return replaced(node, 1, "repeats", times)


def interleaved(t: Tracker, node: fx.Node) -> Dims:
    """Every entry several times in a row."""
    x, times = tensor(node, 0), node.args[1]
    d = argument(node, 2, "dim")
    if not isinstance(times, int) or d is None:
        t.fix(x, None, f"repeated by {blame(node)}")
        return [None] * len(t.shape(node))
    dims = t.dims(x)
    dim = dims[int(d)]
    dims[int(d)] = None if dim is None else dim.repeat(times, 0)
    return dims


def concatenate(t: Tracker, node: fx.Node) -> Dims:
    """Channels side by side."""
    parts: Sequence[fx.Node] = [p for p in tensors(node) if p.meta["val"].numel() or p.meta["val"].dim() > 1]
    rank = len(t.shape(parts[0]))
    at = int(argument(node, 1, "dim", 0)) % rank
    found: Dims = list(t.dims(parts[0]))
    for part in parts[1:]:
        for d in range(rank):
            if d != at:
                found[d] = t.tie(part, d, found[d])
    found[at] = stack([t.dim(p, at) for p in parts], [t.shape(p)[at] for p in parts])
    return found


def stacked(t: Tracker, node: fx.Node) -> Dims:
    """Tensors along a new dimension."""
    parts: Sequence[fx.Node] = node.args[0]  # type: ignore[assignment]
    at = int(argument(node, 1, "dim", 0)) % len(t.shape(node))
    found: list[Dim] = list(t.dims(parts[0]))
    for part in parts[1:]:
        for d in range(len(found)):
            found[d] = t.tie(part, d, found[d])
    return [*found[:at], None, *found[at:]]


def permuted(x: Tensor, dim: int, order: Sequence[int]) -> Tensor:
    """The indices of one dimension in another order."""
    return x.index_select(dim, torch.tensor(order, device=x.device))


def reordered(t: Tracker, node: fx.Node) -> Dims:
    """A permutation of one dimension."""
    x, at = tensor(node, 0), number(node, 1)
    dims = t.dims(x)
    dim = dims[at]
    dims[at] = None if dim is None else dim[numbers(node, 2)]
    return dims


def resize_permuted(sizes: Sizes, node: fx.Node) -> Call:
    """The permutation of what is left."""
    x, d, indices = tensor(node, 0), number(node, 1), numbers(node, 2)
    dim, out = sizes.dims(x)[d], sizes.dims(node)[d]
    if dim is None or out is None:
        left = indices
    else:
        rank = {old: new for new, old in enumerate(sizes.kept(dim))}
        left = [rank[indices[i]] for i in sizes.kept(out)]
    ranges = (slice(None),) * d
    return Call(operator.getitem, (x, (*ranges, left)), {})


def fuse_permutations(graph: fx.Graph) -> None:
    """Replace view, transpose, view (a channel shuffle) by one permutation: it couples nothing."""
    for last in list(graph.nodes):
        if operator_name(last) not in ("view", "reshape", "flatten"):
            continue
        chain = _chain(last)
        if chain is None:
            continue
        source = tensor(chain[0], 0)
        found = _permutation(source, [*chain, last])
        if found is not None:
            with graph.inserting_after(last):
                new = graph.call_function(permuted, (source, *found))
            new.meta = dict(last.meta)
            last.replace_all_uses_with(new)
            for node in reversed([*chain, last]):
                graph.erase_node(node)


def _chain(last: fx.Node) -> list[fx.Node] | None:
    """The nodes from the first view to before `last`, if each is used by the next one only."""
    chain: list[fx.Node] = []
    node = last.args[0]
    for kinds in (("contiguous", "clone"), ("transpose", "permute"), ("view", "reshape", "unflatten")):
        while isinstance(node, fx.Node) and operator_name(node) in kinds:
            if len(node.users) != 1:
                return None
            chain.insert(0, node)
            node = node.args[0]
    if not chain or operator_name(chain[0]) not in ("view", "reshape", "unflatten") or not isinstance(node, fx.Node):
        return None
    return chain if any(operator_name(c) in ("transpose", "permute") for c in chain) else None


def _permutation(source: fx.Node, chain: Sequence[fx.Node]) -> tuple[int, tuple[int, ...]] | None:
    """Dimension and order, if the chain permutes one dimension of the source and no more."""
    shape = tuple(source.meta["val"].shape)
    if tuple(chain[-1].meta["val"].shape) != shape:
        return None
    before = np.arange(int(np.prod(shape))).reshape(shape)
    after = before
    for node in chain:
        if operator_name(node) in ("transpose", "permute"):
            after = after.transpose(order(node))
        else:
            after = after.reshape(tuple(node.meta["val"].shape))
    for d in range(1, len(shape)):
        line = np.moveaxis(after, d, 0).reshape(shape[d], -1)[:, 0]
        origin = np.moveaxis(before, d, 0).reshape(shape[d], -1)[:, 0]
        places = {int(v): i for i, v in enumerate(origin)}
        if all(int(v) in places for v in line):
            indices = [places[int(v)] for v in line]
            if indices != list(range(shape[d])) and np.array_equal(after, before.take(indices, d)):
                return d, tuple(indices)
    return None


RULES = {
    **serve(Rule(reordered, resize_permuted), "permuted"),
    **serve(Rule(reshape, resize_sizes), "reshape view _unsafe_view"),
    **serve(Rule(reshape), "flatten.using_ints squeeze.dim squeeze.dims unsqueeze ravel"),
    **serve(Rule(reshape, resize_squeeze), "squeeze"),
    **serve(Rule(reshape_like), "reshape_as view_as"),
    **serve(Rule(reshape, resize_unflatten), "unflatten.int"),
    **serve(
        Rule(permute),
        """permute transpose transpose.int t numpy_T mT adjoint swapaxes swapdims movedim.int movedim.intlist
        moveaxis.int moveaxis.intlist""",
    ),
    **serve(Rule(expand, resize_sizes), "expand"),
    **serve(Rule(expand_like), "expand_as"),
    **serve(Rule(repeat, resize_repeat), "repeat tile"),
    **serve(Rule(interleaved), "repeat_interleave.self_int"),
    **serve(Rule(concatenate), "cat concat concatenate"),
    **serve(Rule(stacked), "stack"),
}

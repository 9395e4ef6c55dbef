"""Whether two ways to compute a network agree: by the operators they call, and where that does not tell, by values.

Recording a network on tensors without values takes a fraction of one real forward pass. If it calls what a cut calls,
one operator after the other, on the same weights and with the same numbers, then both compute the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, fx

from sartor.core import trees
from sartor.core.rng import global_seed
from sartor.core.trees import Inputs, Tree
from sartor.surgery.analysis.batches import Counted, Number, fitted, leaves
from sartor.surgery.analysis.opaque import opaque
from sartor.surgery.analysis.operators.shape import fuse_permutations, permuted
from sartor.surgery.analysis.recording import Traced
from sartor.surgery.cutting.slicing import Cut

_CLOSE = 1e-3
"""Largest difference between two outputs, relative to the difference that another input makes."""
_NOISE = 1e-5
"""What rounding adds, relative to the output."""


def difference(cut: Cut, traced: Traced) -> tuple[fx.Node, fx.Node] | None:
    """The first operator that `cut` calls otherwise than a network that was recorded, and what that calls instead.

    Where only what they return is otherwise, the two outputs.

    Args:
        cut: Of the network's graph, for as many examples as were recorded.
        traced: The network, or a narrower one of its class; its graph is changed.

    Returns:
        None if there is none.
    """
    fuse_permutations(traced.graph)
    match = _Match(cut, traced)
    return next(match.differences(), None)


def counted(cuts: Mapping[int, Cut], traced: Mapping[int, Traced]) -> Counted:
    """What counts examples in a graph although its labels do not say so.

    Args:
        cuts: Size of the batch -> the whole graph for it.
        traced: Size of the batch -> the network as recorded with it, permutations fused; all sizes in `cuts` but one.
    """
    numbers, dims = dict[int, tuple[Number, ...]](), dict[int, tuple[int, ...]]()
    nodes = next(iter(cuts.values())).skeleton.calls
    others = {n: [o for o in t.graph.nodes if o.op == "call_function"] for n, t in traced.items()}
    for i, node in enumerate(nodes):
        here = {n: calls[i] for n, calls in others.items() if i < len(calls)}
        if len(here) < len(others) or any(other.target is not node.target for other in here.values()):
            break  # from here on it does something else
        found = list(_numbers(node, cuts, here))
        if found:
            numbers[i] = tuple(found)
        grown = tuple(_grown(node, here, next(n for n in cuts if n not in traced)))
        if grown:
            dims[i] = grown
    return Counted(numbers, dims) if numbers else Counted()


def _numbers(node: fx.Node, cuts: Mapping[int, Cut], others: Mapping[int, fx.Node]) -> Iterator[Number]:
    """Arguments that are otherwise than a cut says, and count examples."""
    if node.target is permuted or node.target is opaque:
        return
    calls = {n: leaves(call.args, call.kwargs) for n, cut in cuts.items() for call in [cut.call(node)]}
    given = {n: leaves(other.args, other.kwargs) for n, other in others.items()}
    for n in calls.keys() - given.keys():
        given[n] = leaves(node.args, node.kwargs)
    for path in leaves(node.args, node.kwargs):
        if not all(path in args for args in (*given.values(), *calls.values())):
            continue
        values = {n: args[path] for n, args in given.items()}
        if any(isinstance(v, fx.Node) for v in values.values()) or all(v == calls[n][path] for n, v in values.items()):
            continue
        number = fitted(path, values)
        if number is not None:
            yield number


def _grown(node: fx.Node, others: Mapping[int, fx.Node], traced: int) -> Iterator[int]:
    """Dimensions that are as large as the batch, whatever that is."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return
    for d, size in enumerate(value.shape):
        sizes = {n: tuple(other.meta["val"].shape)[d : d + 1] for n, other in others.items()}
        if size == traced and all(found == (n,) for n, found in sizes.items()):
            yield d


def agree(found: Callable[[Inputs], Tree], wanted: Callable[[Inputs], Tree], inputs: Inputs) -> bool:
    """Whether both give the same for these inputs, in the same containers; no gradients are taken.

    Raises:
        Exception: Whatever `wanted` raises.
    """
    with global_seed(0), torch.no_grad():
        expected = wanted(inputs)
    try:
        with global_seed(0), torch.no_grad():
            return same(found(inputs), expected)
    except Exception:  # noqa: BLE001 - the network's own code, with numbers it was not written for
        return False


def same(found: Tree, wanted: Tree) -> bool:
    """Whether two trees are equal but for rounding: containers, and tensors of the same shapes, types and values."""
    return same_kind(found, wanted) and all(
        near(a, b) for a, b in zip(trees.leaves(found), trees.leaves(wanted), strict=True)
    )


def same_kind(found: Tree, wanted: Tree) -> bool:
    """Whether two trees have the same containers, with tensors of the same shapes and types."""
    if isinstance(found, Tensor) and isinstance(wanted, Tensor):
        return found.shape == wanted.shape and found.dtype == wanted.dtype
    parts, others = trees.children(found), trees.children(wanted)
    if type(found) is not type(wanted) or parts is None or others is None:
        return type(found) is type(wanted) and parts is others and (isinstance(found, Tensor) or found == wanted)
    return [k for k, _ in parts] == [k for k, _ in others] and all(
        same_kind(a, b) for (_, a), (_, b) in zip(parts, others, strict=True)
    )


def near(found: Tensor, wanted: Tensor) -> bool:
    """Whether two outputs are equal but for rounding; classes and the like are not looked at."""
    if not wanted.is_floating_point() or not wanted.numel():
        return True
    odd = (found == wanted) | (found.isnan() & wanted.isnan())  # infinite, or no number, in both
    gap = torch.where(odd, 0.0, found - wanted).abs().max()
    wanted = torch.where(wanted.isfinite(), wanted, 0.0)
    each = wanted.dim() > 0 and len(wanted) > 1  # what two inputs have in common hides differences
    signal = (wanted[0] - wanted[1]).abs().max() if each else wanted.abs().max()
    return bool(gap <= _CLOSE * signal + _NOISE * wanted.abs().max().clamp(min=1e-12))


def _complete(node: fx.Node, count: int) -> tuple[Any, ...]:
    """The arguments by place, with defaults for those that were left out, `count` in all."""
    schema = getattr(node.target, "_schema", None)
    more = [] if schema is None else schema.arguments[len(node.args) : count]
    return (*node.args, *(argument.default_value for argument in more))


class _Match:
    """Goes through a cut and a recorded network side by side."""

    def __init__(self, cut: Cut, traced: Traced) -> None:
        self.cut, self.mine, self.other = cut, cut.skeleton.coupling.traced, traced
        self.pairs: dict[fx.Node, fx.Node] = {}
        entries = {self._entry(n, traced): n for n in traced.graph.nodes if n.op == "placeholder"}
        for node in cut.skeleton.nodes:
            twin = entries.get(self._entry(node, self.mine)) if node.op == "placeholder" else None
            if twin is not None:
                self.pairs[node] = twin

    def differences(self) -> Iterator[tuple[fx.Node, fx.Node]]:
        """Operators that differ; of what follows the first one no more is known."""
        nodes = [n for n in self.cut.skeleton.nodes if n.op == "call_function"]
        others = [n for n in self.other.graph.nodes if n.op == "call_function"]
        for node, other in zip_longest(nodes, others):
            if node is None or other is None or not self._alike(node, other):
                yield node or nodes[-1], other or others[-1]
            self.pairs[node] = other
        ends = [next(n for n in reversed(g.nodes) if n.op == "output") for g in (self.mine.graph, self.other.graph)]
        if not self._equal(ends[0].args, ends[1].args) or not same_kind(*self._structures()):
            yield ends[0], ends[1]

    def _structures(self) -> tuple[Tree, Tree]:
        """What both give, with the shapes of the one that was recorded."""
        values = trees.leaves(self.other.structure)
        left = iter(values)
        mine = trees.mapped(lambda t: next(left, t), self.mine.structure)
        return mine, self.other.structure

    def _entry(self, node: fx.Node, traced: Traced) -> tuple[str, str]:
        """What a placeholder stands for."""
        if node.name in traced.weights:
            return "weight", traced.weights[node.name]
        inputs = {place: name for name, place in traced.inputs.items()}
        return ("input", inputs[node.name]) if node.name in inputs else ("constant", node.name)

    def _alike(self, node: fx.Node, other: fx.Node) -> bool:
        call = self.cut.call(node)
        if node.target is permuted:
            return other.target is permuted and self._permutes(call.args, other)
        if call.target is not other.target or call.kwargs.keys() != other.kwargs.keys():
            return False
        return self._equal(call.args, _complete(other, len(call.args))) and all(
            self._equal(value, other.kwargs[name]) for name, value in call.kwargs.items()
        )

    def _permutes(self, args: tuple[Any, ...], other: fx.Node) -> bool:
        x, index = args
        source, d, order = (*other.args,)
        return self.pairs.get(x) is source and len(index) - 1 == d and bool(list(index[-1]) == list(order))  # type: ignore[arg-type]

    def _sizes(self, mine: fx.Node, other: fx.Node) -> bool:
        """Whether two weights, or inputs, are as large."""
        value, found = mine.meta["val"], other.meta["val"]
        wanted = [self.cut.scale(int(n), dim) for n, dim in zip(value.shape, self.cut.dims(mine), strict=True)]
        return wanted == list(found.shape) and bool(value.dtype == found.dtype)

    def _equal(self, mine: Any, other: Any) -> bool:
        if isinstance(mine, fx.Node) or isinstance(other, fx.Node):
            return self._same_node(mine, other)
        if isinstance(mine, (list, tuple)) and isinstance(other, (list, tuple)):
            return len(mine) == len(other) and all(self._equal(a, b) for a, b in zip(mine, other, strict=True))
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            return mine.keys() == other.keys() and all(self._equal(mine[k], other[k]) for k in mine)
        return type(mine) is type(other) and bool(mine == other)

    def _same_node(self, mine: Any, other: Any) -> bool:
        if not isinstance(mine, fx.Node) or not isinstance(other, fx.Node) or self.pairs.get(mine) is not other:
            return False
        if mine.op != "placeholder":
            return True
        if mine.name not in self.mine.constants:
            return self._sizes(mine, other)
        value = self.cut.narrow(self.mine.constants[mine.name], self.cut.dims(mine))
        twin = self.other.constants[other.name]
        return value.shape == twin.shape and value.dtype == twin.dtype and bool(torch.equal(value, twin))

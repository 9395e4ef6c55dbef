"""The labels of all tensors of a graph while its operators are gone through, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from math import prod
from operator import mul
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor, fx

from sartor.core import dispatch
from sartor.surgery.analysis.recording import Traced
from sartor.surgery.analysis.trace import place
from sartor.surgery.analysis.units import Dim, Labels, Units

Dims: TypeAlias = list[Dim]
"""The labels of a tensor, one entry per dimension."""


class Birth(NamedTuple):
    """The output channels of a layer: where units come from.

    Attributes:
        together: Whether all families among them are one decision, however many units they have.
    """

    node: fx.Node
    weight: fx.Node
    labels: Labels
    together: bool = False


class Tracker:
    """The labels of a network's tensors.

    A weight takes the labels of the first tensor it meets; only the outputs of convolutions and linear layers, and
    weights that are used as tensors, bring new units.

    Args:
        units: Where the units live; several graphs of one network may share them.
        weights: Name of a parameter or buffer -> its labels, shared likewise.
    """

    def __init__(self, traced: Traced, units: Units, weights: dict[str, list[Dim | str]]) -> None:
        self.units, self.weights = units, weights
        self._names = {**traced.weights, **{name: name for name in traced.constants}}
        self.of: dict[fx.Node, Dims | list[Dims]] = {}
        self.births: list[Birth] = []
        self.inner: dict[fx.Node, Dim] = {}
        """Labels that a rule needs again when the network is cut, and that no tensor has."""

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """The shape of a node's tensor in the traced graph."""
        return tuple(int(n) for n in node.meta["val"].shape)

    def is_weight(self, node: Any) -> bool:
        """Whether a node is a parameter or buffer."""
        return isinstance(node, fx.Node) and node.op == "placeholder" and node.name in self._names

    def name(self, node: fx.Node) -> str:
        """The name of a parameter or buffer."""
        return self._names[node.name]

    def dims(self, node: fx.Node) -> Dims:
        """The labels of a tensor; dimensions of a weight that nothing has labelled yet get units of their own."""
        return [self.dim(node, d) for d in range(len(self.shape(node)))]

    def dim(self, node: fx.Node, d: int) -> Dim:
        """The labels of one dimension."""
        if not self.is_weight(node):
            return self.of[node][d]  # type: ignore[return-value]
        entries, shape = self._entries(node), self.shape(node)
        entry = entries[d]
        if isinstance(entry, str):
            entry = entries[d] = self.units.fresh(shape[d]) if shape[d] > 1 else None
        return entry

    def tie(self, node: fx.Node, d: int, dim: Dim, reason: str = "") -> Dim:
        """Make dimension `d` of `node` equal to `dim`."""
        d %= len(self.shape(node))
        if self.is_weight(node):
            entries = self._entries(node)
            if isinstance(entries[d], str):
                entries[d] = dim
                return dim
        return self.units.equal(dim, self.dim(node, d), reason or f"coupled by {operator_name(node)}")

    def fix(self, node: fx.Node, dims: Sequence[int] | None, reason: str) -> None:
        """These dimensions of `node` (all of them if None) stay as they are."""
        for d in range(len(self.shape(node))) if dims is None else dims:
            self.units.pin(self.tie(node, d, None, reason), reason)

    def sums(self, dims: Sequence[Dims], shapes: Sequence[Sequence[int]], out: Sequence[int], reason: str) -> Dims:
        """The labels of what several tensors broadcast to; they are made equal."""
        found: Dims = []
        for d in range(-len(out), 0):
            here: list[Dim] = [
                of[d] for of, shape in zip(dims, shapes, strict=True) if len(shape) >= -d and shape[d] == out[d] != 1
            ]
            joint = here[0] if here else None
            for other in here[1:]:
                joint = self.units.equal(joint, other, reason)
            found.append(joint)
        return found

    def reshape(self, dims: Dims, before: Sequence[int], after: Sequence[int], reason: str) -> Dims:
        """The labels of a tensor whose shape is read anew, in the same order of elements."""
        found: Dims = []
        for ins, outs in _segments(before, after):
            found += self._segment([dims[i] for i in ins], [before[i] for i in ins], [after[o] for o in outs], reason)
        return found

    def _segment(self, dims: Dims, before: list[int], after: list[int], reason: str) -> Dims:
        if all(dim is None for dim in dims):
            return [None] * len(after)
        if before == after:
            return dims
        parts = _refinement(before, after)
        if parts is None:
            return self.units.split(self.units.merge(dims, before), after, reason)
        pieces: Dims = []
        sizes = iter(parts)
        for dim, size in zip(dims, before, strict=True):
            if size == 1:
                continue
            mine = _take(sizes, size)
            pieces += [dim] if len(mine) == 1 else self.units.split(dim, mine, reason)
        found: Dims = []
        at = 0
        for size in after:
            count = len(_take(iter(parts[at:]), size))
            block = pieces[at : at + count]
            found.append(block[0] if count == 1 else self.units.merge(block, parts[at : at + count]))
            at += count
        return found

    def _entries(self, node: fx.Node) -> list[Dim | str]:
        return self.weights.setdefault(self.name(node), ["new"] * len(self.shape(node)))


def operator_name(node: fx.Node) -> str:
    """The name of a node's operator without overload and in-place mark: `add` for `aten.add_.Tensor`."""
    return dispatch.operator_name(node.target)


def in_place(node: fx.Node) -> bool:
    """Whether a node's operator changes its first input (`relu_`)."""
    return str(getattr(node.target, "__name__", "")).split(".", maxsplit=1)[0].endswith("_")


def flat(dims: Dims | list[Dims]) -> Iterator[Labels]:
    """The labels that a node's tensor, or tensors, have; static dimensions are left out."""
    for dim in dims:
        if isinstance(dim, list):
            yield from flat(dim)
        elif dim is not None:
            yield dim


def tensors(node: fx.Node) -> list[fx.Node]:
    """The inputs of a node that are tensors, those in lists included, in order and with repeats."""
    found: list[fx.Node] = []

    def visit(value: Any) -> None:
        if isinstance(value, fx.Node):
            if isinstance(value.meta.get("val"), Tensor):
                found.append(value)
        elif isinstance(value, (list, tuple)):
            for entry in value:
                visit(entry)

    for value in (*node.args, *node.kwargs.values()):
        visit(value)
    return found


def argument(node: fx.Node, index: int, name: str, default: Any = None) -> Any:
    """An argument by place or name."""
    if len(node.args) > index:
        return node.args[index]
    return node.kwargs.get(name, default)


def tensor(node: fx.Node, index: int) -> fx.Node:
    """An argument that is a tensor."""
    found = node.args[index]
    assert isinstance(found, fx.Node)
    return found


def number(node: fx.Node, index: int) -> int:
    """An argument that is a whole number."""
    found = node.args[index]
    assert isinstance(found, int)
    return found


def numbers(node: fx.Node, index: int) -> list[int]:
    """An argument that is one whole number or several."""
    found = node.args[index]
    assert isinstance(found, (int, list, tuple))
    return [found] if isinstance(found, int) else [n for n in found if isinstance(n, int)]


def blame(node: fx.Node) -> str:
    """What a person calls the place of a node: the module's name and the operator."""
    where = place(node)
    return f"{where} ({operator_name(node)})" if where else operator_name(node)


def _segments(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Shortest runs of dimensions with equal products, those of size one left out on the way in."""
    found: list[tuple[list[int], list[int]]] = []
    i = o = 0
    while i < len(before) or o < len(after):
        ins, outs = list[int](), list[int]()
        left = right = 1
        while True:
            if left == right and (ins or outs) and left > 1:
                break
            if left <= right and i < len(before):
                left *= before[i]
                ins.append(i)
                i += 1
            elif o < len(after):
                right *= after[o]
                outs.append(o)
                o += 1
            elif i < len(before):
                left *= before[i]
                ins.append(i)
                i += 1
            else:
                break
        found.append((ins, outs))
    return found


def _refinement(before: Sequence[int], after: Sequence[int]) -> list[int] | None:
    """Sizes, outermost first, of which both shapes are products of runs; None if there are none."""
    marks = sorted({*accumulate(reversed(before), mul), *accumulate(reversed(after), mul), 1})
    if any(high % low for low, high in pairwise(marks)):
        return None
    return [high // low for low, high in reversed(list(pairwise(marks)))]


def _take(sizes: Any, product: int) -> list[int]:
    taken: list[int] = []
    while prod(taken) < product:
        taken.append(next(sizes))
    return taken

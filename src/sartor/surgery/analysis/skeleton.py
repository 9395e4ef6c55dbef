"""What all cuts of a network share: its nodes, the blocks that can be skipped, and what each label stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch import fx

from sartor.surgery.analysis.coupling import Coupling
from sartor.surgery.analysis.operators import rule_of
from sartor.surgery.analysis.tracker import flat, in_place, tensors
from sartor.surgery.analysis.units import Dim, Labels


class Block(NamedTuple):
    """A residual block that can be skipped.

    Attributes:
        end: The sum of shortcut and block.
        shortcut: What remains without the block.
        members: What is only computed for the block.
        switch: The unit that stands for it.
    """

    end: fx.Node
    shortcut: fx.Node
    members: frozenset[fx.Node]
    switch: int


class Skeleton:
    """What all cuts of a network share: its nodes, and what each label stands for in the end.

    Args:
        coupling: Of the network.
        blocks: Those that can be skipped.
    """

    def __init__(self, coupling: Coupling, blocks: Sequence[Block] = ()) -> None:
        self.blocks = {block.end: block for block in blocks}
        self.coupling, self.tracker = coupling, coupling.tracker
        self.units = coupling.tracker.units
        self.nodes: tuple[fx.Node, ...] = tuple(coupling.traced.graph.nodes)
        self._roots: dict[int, tuple[Labels, Labels | None]] = {}
        self.calls = tuple(n for n in self.nodes if n.op == "call_function")
        self.weights: dict[str, str] = dict(coupling.traced.weights)
        self.resized = frozenset(n for n in self.calls if self._resized(n))
        self.numbers = coupling.numbers
        self.last_uses = _last_uses(self.nodes)

    def roots(self, labels: Labels) -> Labels | None:
        """`(n, k)` units that the indices depend on, batch included; None if on nothing."""
        known = self._roots.get(id(labels))
        if known is None:
            known = self._roots[id(labels)] = (labels, self.units.resolve(labels))
        return known[1]

    def period(self, labels: Dim) -> int:
        """How many neighbouring indices belong to one example of the batch; 0 if none does."""
        roots = None if labels is None else self.roots(labels)
        if roots is None:
            return 0
        for column in roots.T:
            if self.units.is_batch(column).all():
                return int(np.argmax(column != column[0]))
        return 0

    def _resized(self, node: fx.Node) -> bool:
        rule = rule_of(node)
        if rule is None or rule.resize is None:
            return False
        t = self.tracker
        of = [t.dims(n) if t.is_weight(n) else t.of.get(n, []) for n in (node, *tensors(node))]
        return any(self.roots(labels) is not None for dims in of for labels in flat(dims))


def changed_later(node: fx.Node) -> bool:
    """Whether somebody works in place on the node's tensor."""
    return any(in_place(user) for user in node.users)


def _last_uses(nodes: Sequence[fx.Node]) -> Mapping[fx.Node, tuple[fx.Node, ...]]:
    """Node -> the values that nobody needs after it."""
    last: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        for given in node.all_input_nodes:
            last[given] = node
    found: dict[fx.Node, list[fx.Node]] = {}
    for value, node in last.items():
        if value.op != "placeholder":
            found.setdefault(node, []).append(value)
    return {node: tuple(values) for node, values in found.items()}

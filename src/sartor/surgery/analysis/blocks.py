"""Residual blocks that can be skipped: a sum of a tensor and of something that was made from that tensor alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import fx

from sartor.surgery.analysis.coupling import Coupling, Group
from sartor.surgery.analysis.skeleton import Block, Skeleton
from sartor.surgery.analysis.tracker import flat, in_place, operator_name, tensors


@dataclass(frozen=True)
class Skippable:
    """The groups of a network whose blocks may be skipped.

    Attributes:
        groups: Groups that live in one block are joined with its switch; the others are as they were.
        switches: Name of a joined group -> the unit that stands for its block.
        blocks: The blocks.
    """

    groups: tuple[Group, ...]
    switches: Mapping[str, int]
    blocks: tuple[Block, ...]


def skippable(coupling: Coupling) -> Skippable:
    """Find the blocks, innermost first, and join what lives inside each of them into one group.

    A block without channels of its own is left out: there is no choice that skipping it could be an option of.
    """
    nodes = list(coupling.traced.graph.nodes)
    inputs = set(coupling.traced.inputs.values())
    entrances = {node for node in nodes if node.op == "placeholder" and node.name in inputs}
    places = _places(coupling)
    groups, switches, blocks = list(coupling.groups), dict[str, int](), list[Block]()
    taken: set[fx.Node] = set()
    for node in nodes:
        found = _block(node, entrances)
        if found is None or taken & found[1]:
            continue
        shortcut, members = found
        inside = [g for g in groups if g.name not in switches and places[g.name] and places[g.name] <= members]
        if not inside:
            continue
        switch = int(coupling.tracker.units.fresh(1)[0, 0])
        joined = _join(inside, switch)
        at = groups.index(inside[0])
        groups = [joined if i == at else g for i, g in enumerate(groups) if i == at or g not in inside]
        switches[joined.name] = switch
        blocks.append(Block(node, shortcut, frozenset(members), switch))
        taken |= members
    return Skippable(tuple(groups), switches, tuple(blocks))


def _join(groups: Sequence[Group], switch: int) -> Group:
    families = [family for group in groups for family in group.families]
    layers = tuple(layer for group in groups for layer in group.layers)
    return replace(groups[0], families=(*families, np.array([switch])), layers=layers)


def _block(node: fx.Node, entrances: set[fx.Node]) -> tuple[fx.Node, set[fx.Node]] | None:
    """Shortcut and members, if the node is a sum that ends a block."""
    inputs = tensors(node)
    if node.op != "call_function" or operator_name(node) != "add" or len(inputs) != 2 or inputs[0] is inputs[1]:
        return None
    shapes = [tuple(i.meta["val"].shape) for i in inputs]
    if shapes[0] != shapes[1] or any(i.op == "placeholder" for i in inputs):
        return None
    for shortcut, end in (inputs, inputs[::-1]):
        members = _between(shortcut, end, entrances)
        if members and all(user in members or user is node for m in members for user in m.users):
            return None if any(in_place(m) and m.args[0] is shortcut for m in members) else (shortcut, members)
    return None


def _between(start: fx.Node, end: fx.Node, entrances: set[fx.Node]) -> set[fx.Node]:
    """What lies on the way from `start` to `end`; empty if `end` needs anything else that depends on the input."""
    members: set[fx.Node] = set()
    reached, stack = False, [end]
    while stack:
        node = stack.pop()
        if node is start:
            reached = True
            continue
        if node.op == "placeholder" or node in members:
            continue
        members.add(node)
        if len(members) > 400:
            return set()
        stack += node.all_input_nodes
    weights_only = reached and all(n.op == "call_function" for n in members)
    others = entrances - {start}
    return members if weights_only and not any(others & set(m.all_input_nodes) for m in members) else set()


def _places(coupling: Coupling) -> dict[str, set[fx.Node]]:
    """Group -> the nodes whose tensors have its channels."""
    skeleton = Skeleton(coupling)
    owner: dict[int, str] = {int(u): g.name for g in coupling.groups for f in g.families for u in f}
    found: dict[str, set[fx.Node]] = {group.name: set() for group in coupling.groups}
    for node, dims in coupling.tracker.of.items():
        for labels in flat(dims):
            roots = skeleton.roots(labels)
            for unit in () if roots is None else np.unique(roots).tolist():
                if unit in owner:
                    found[owner[unit]].add(node)
    return found

"""Residual streams: channels to which several parts of a network add what they compute."""

from __future__ import annotations

import numpy as np
from torch import fx

from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.analysis.tracker import flat, operator_name, tensors


def streams(skeleton: Skeleton) -> frozenset[int]:
    """The units that a sum of two computed tensors has; a bias or a table of positions makes none."""
    entrances = set(skeleton.coupling.traced.inputs.values())
    computed, found = set[fx.Node](), set[int]()
    for node in skeleton.nodes:
        if node.op == "placeholder":
            computed |= {node} if node.name in entrances else set()
        elif any(given in computed for given in node.all_input_nodes):
            computed.add(node)
            if operator_name(node) == "add" and len(parts := tensors(node)) == 2 and computed.issuperset(parts):
                for labels in flat(skeleton.tracker.dims(node)):
                    roots = skeleton.roots(labels)
                    found.update(() if roots is None else np.unique(roots).tolist())
    return frozenset(found)

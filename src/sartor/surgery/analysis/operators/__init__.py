"""One small rule per operator: how channels pass through it, and how its constants change when channels are cut."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import fx

from sartor.surgery.analysis.operators import (
    attention,
    black_box,
    convolution,
    creation,
    elementwise,
    matrix,
    normalisation,
    recurrent,
    reduction,
    selection,
    shape,
    spatial,
)
from sartor.surgery.analysis.operators.rule import Rule
from sartor.surgery.analysis.tracker import operator_name

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        name: rule
        for module in (
            attention,
            black_box,
            convolution,
            creation,
            elementwise,
            matrix,
            normalisation,
            recurrent,
            reduction,
            selection,
            shape,
            spatial,
        )
        for name, rule in module.RULES.items()
    }
)
"""Name of an operator -> its rule."""


def rule_of(node: fx.Node) -> Rule | None:
    """The rule of a node's operator, or None: then everything it touches stays as it is."""
    name = operator_name(node)
    if name in ("max", "min") and getattr(node.target, "_overloadname", "") == "other":  # of two tensors: by place
        return elementwise.POINTWISE
    known = RULES.get(name)
    if known is None and torch.Tag.pointwise in getattr(node.target, "tags", ()):
        return elementwise.POINTWISE
    return known

"""One small rule per operator: how channels pass through it, and how its constants change when channels are cut."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx

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
from sartor.surgery.analysis.operators.rule import Rule, Whole
from sartor.surgery.analysis.tracker import Dims, Tracker, operator_name

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
"""Name of an overload, `max.dim`, without in-place mark -> its rule."""
_FAILED = "rule_failed"
"""Key of `fx.Node.meta`: why the rule of its operator does not hold for this call."""


def rule_of(node: fx.Node) -> Rule | None:
    """The rule of a node's operator, or None: then everything it touches stays as it is."""
    if _FAILED in node.meta:
        return None
    known = RULES.get(f"{operator_name(node)}.{_overload(node)}")
    tags = getattr(node.target, "tags", ())
    several = isinstance(node.meta.get("val"), (tuple, list))  # `frexp` is called pointwise, too
    if known is None and torch.Tag.pointwise in tags and torch.Tag.out not in tags and not several:
        return elementwise.POINTWISE
    return known


def labelled(tracker: Tracker, node: fx.Node) -> Dims | list[Dims] | None:
    """The labels of what a node gives, by the rule of its operator; None if it has none, or none that holds here."""
    rule, value = rule_of(node), node.meta.get("val")
    if rule is None or not isinstance(value, (Tensor, list, tuple)):
        return None
    births = len(tracker.births)
    try:
        found = tracker.of[node] = rule.couple(tracker, node)
        _check(found, value)
        if rule.mixes is not None:
            rule.mixes(node)
        if rule.resize is not None:
            rule.resize(Whole(tracker), node)
    except Exception as error:  # noqa: BLE001 - whatever a rule meets that it was not written for
        node.meta[_FAILED] = " ".join(str(error).split()) or type(error).__name__
        tracker.of.pop(node, None)
        del tracker.births[births:]
        return None
    return found


def why_not(node: fx.Node) -> str:
    """Why a node's operator has no rule here."""
    name = operator_name(node)
    others = any(key.partition(".")[0] == name for key in RULES)
    full = f"{name}.{_overload(node)}" if others else name
    if _FAILED in node.meta:
        return f"the rule for {full} does not hold here: {node.meta[_FAILED]}"
    return f"there is no rule for {full}"


def _overload(node: fx.Node) -> str:
    return getattr(node.target, "_overloadname", "") or "default"


def _check(found: Any, value: Any) -> None:
    """Labels must be as many as there are dimensions and indices.

    Raises:
        ValueError: They are not.
    """
    if not isinstance(value, Tensor):
        if len(found) != len(value):
            raise ValueError(f"it gives labels of {len(found)} tensors for {len(value)}")
        for labels, part in zip(found, value, strict=True):
            if isinstance(part, Tensor):
                _check(labels, part)
        return
    sizes = [n if isinstance(d, list) or d is None else len(d) for d, n in zip(found, value.shape, strict=False)]
    if len(found) != value.dim() or sizes != list(value.shape) or any(isinstance(d, list) for d in found):
        raise ValueError(f"it gives labels of another shape than {tuple(value.shape)}")

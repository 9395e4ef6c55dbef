"""Modules that are left as they are."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from sartor.surgery.analysis.operators.rule import Rule, serve
from sartor.surgery.analysis.trace import BATCH
from sartor.surgery.analysis.tracker import Dims, Tracker, tensors


def opaque(t: Tracker, node: fx.Node) -> Any:
    """What enters stays; the batch passes."""
    batch = None
    for given in tensors(node):
        t.fix(given, None, f"it enters {node.kwargs['module']}, which is left as it is (ignore)")
        first = t.dim(given, 0) if t.shape(given) else None
        batch = first if batch is None else batch
    value = node.meta["val"]
    found = [_dims(v, batch) for v in (value if isinstance(value, (tuple, list)) else (value,))]
    return found[0] if isinstance(value, Tensor) else found


def _dims(value: Tensor, batch: Any) -> Dims:
    return [batch if d == 0 and n == BATCH else None for d, n in enumerate(value.shape)]


RULES = serve(Rule(opaque), "opaque")

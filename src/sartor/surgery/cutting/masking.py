"""Statistics over channels where some are off for some examples: only those that are on count.

What is summed up with zeros is right by itself; means, and normalisation, must know how many channels there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from sartor.surgery.analysis.operators.recurrent import GATES
from sartor.surgery.analysis.operators.reduction import reduced
from sartor.surgery.analysis.operators.rule import Call, named
from sartor.surgery.analysis.tracker import argument, operator_name, tensor


class Pass(Protocol):
    """A forward pass with masks."""

    def value(self, node: fx.Node) -> Any:
        """What a node has computed."""

    def mask_of(self, node: fx.Node, dims: Sequence[int]) -> Tensor | None:
        """What its value is multiplied by along `dims`; None if nothing is off."""

    def weight_mask(self, node: fx.Node, d: int) -> Tensor | None:
        """What a weight is multiplied by along `d`, the same for all examples; None if nothing is off."""


def masked_batch_norm(
    x: Tensor, active: Tensor, weights: tuple[Any, Any, Any, Any], momentum: float, eps: float
) -> Tensor:
    """Batch norm whose statistics count the active examples of each channel only; `active` broadcasts to `x`."""
    weight, bias, mean, var = weights
    dims = [d for d in range(x.dim()) if d != 1]
    shape = [1, -1, *[1] * (x.dim() - 2)]
    full = active.expand_as(x)
    count = full.sum(dims).clamp(min=1)
    center = (x * full).sum(dims) / count
    spread = ((x - center.reshape(shape)) ** 2 * full).sum(dims) / count
    with torch.no_grad():
        step = momentum * (full.sum(dims) > 0).to(x)
        mean.lerp_(center.detach().to(mean), step.to(mean))
        var.lerp_((spread * count / (count - 1).clamp(min=1)).detach().to(var), step.to(var))
    scale = torch.rsqrt(spread + eps)
    scale = scale if weight is None else scale * weight
    shift = -center * scale if bias is None else bias - center * scale
    return torch.addcmul(shift.reshape(shape), x, scale.reshape(shape))


def _unmasked(run: Pass, call: Call) -> Any:
    """The operator itself, where nothing is off."""
    return call.target(*map_arg(call.args, run.value), **map_arg(call.kwargs, run.value))


def _moments(x: Tensor, on: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean and variance over `dims` of what is on (1, else 0), with those dimensions kept."""
    size = on.sum(dims, keepdim=True).clamp(min=1)
    center = (x * on).sum(dims, keepdim=True) / size
    return center, ((x - center) ** 2 * on).sum(dims, keepdim=True) / size


def _layer_norm(run: Pass, node: fx.Node, call: Call) -> Any:
    given = tensor(node, 0)
    x, count = run.value(given), len(call.args[1])
    weight = argument(node, 2, "weight")
    bias = argument(node, 3, "bias")
    eps = argument(node, 4, "eps", 1e-5)
    dims = tuple(range(x.dim() - count, x.dim()))
    mask = run.mask_of(given, dims)
    if mask is None:
        return _unmasked(run, call)
    x = x * mask
    center, spread = _moments(x, (mask != 0).to(x).expand_as(x), dims)
    out = (x - center) * torch.rsqrt(spread + eps)
    out = out if weight is None else out * run.value(weight)
    return out if bias is None else out + run.value(bias)


def _group_norm(run: Pass, node: fx.Node, call: Call) -> Any:
    given = tensor(node, 0)
    x, groups = run.value(given), int(call.args[1])
    mask = run.mask_of(given, (1,))
    if mask is None:
        return _unmasked(run, call)
    full = (mask != 0).to(x).expand_as(x)
    shape = (len(x), groups, -1)
    parts = (x * mask).reshape(shape)
    center, spread = _moments(parts, full.reshape(shape), (-1,))
    out = ((parts - center) * torch.rsqrt(spread + float(argument(node, 4, "eps", 1e-5)))).reshape(x.shape)
    line = (1, -1, *[1] * (x.dim() - 2))
    weight, bias = argument(node, 2, "weight"), argument(node, 3, "bias")
    out = out if weight is None else out * run.value(weight).reshape(line)
    return out if bias is None else out + run.value(bias).reshape(line)


def _batch_norm(run: Pass, node: fx.Node, call: Call) -> Any:
    """Of the tensor itself; those of layers do not come here."""
    given = tensor(node, 0)
    x = run.value(given)
    dims = tuple(d for d in range(x.dim()) if d != 1)
    mask = run.mask_of(given, dims) if node.args[5] else None
    if mask is None:
        return _unmasked(run, call)
    center, spread = _moments(x, (mask != 0).to(x).expand_as(x), dims)
    out = (x - center) * torch.rsqrt(spread + float(node.args[7]))  # type: ignore[arg-type]
    line = (1, -1, *[1] * (x.dim() - 2))
    weight, bias = node.args[1:3]
    out = out if weight is None else out * run.value(weight).reshape(line)  # type: ignore[arg-type]
    return out if bias is None else out + run.value(bias).reshape(line)  # type: ignore[arg-type]


def _mean(run: Pass, node: fx.Node, call: Call) -> Any:
    given = tensor(node, 0)
    dims = reduced(node)
    mask = run.mask_of(given, dims)
    if mask is None:
        return _unmasked(run, call)
    x = run.value(given)
    full = (mask != 0).to(x).expand_as(x)
    keep = bool(argument(node, 2, "keepdim", False))
    return (x * mask).sum(dims, keepdim=keep) / full.sum(dims, keepdim=keep).clamp(min=1)


def _spread(run: Pass, node: fx.Node, call: Call) -> Any:
    """`var`, `std`, `var_mean`, `std_mean`."""
    given = tensor(node, 0)
    dims, name = reduced(node), operator_name(node)
    mask = run.mask_of(given, dims)
    if mask is None:
        return _unmasked(run, call)
    x = run.value(given)
    full = (mask != 0).to(x).expand_as(x)
    size = full.sum(dims, keepdim=True).clamp(min=1)
    center = (x * mask).sum(dims, keepdim=True) / size
    less = _correction(node)
    size = size - less
    found = ((x - center) ** 2 * full).sum(dims, keepdim=True) / size
    found = found.sqrt() if name.startswith("std") else found
    if not argument(node, 3, "keepdim", False):
        shape = [n for d, n in enumerate(found.shape) if d not in dims]
        found, center = found.reshape(shape), center.reshape(shape)
    return (found, center) if name.endswith("mean") else found


def _correction(node: fx.Node) -> float:
    """What is taken off the number of entries: `correction`, or `unbiased` for one or none."""
    for name in ("unbiased", "correction"):
        with suppress(LookupError):
            found = named(node, name)
            return 1.0 if found is None else float(found)
    return 1.0


def _rms_norm(run: Pass, node: fx.Node, call: Call) -> Any:
    given = tensor(node, 0)
    x = run.value(given)
    dims = tuple(range(x.dim() - len(call.args[1]), x.dim()))
    mask = run.mask_of(given, dims)
    if mask is None:
        return _unmasked(run, call)
    size = (mask != 0).to(x).expand_as(x).sum(dims, keepdim=True).clamp(min=1)
    x = x * mask
    weight, eps = argument(node, 2, "weight"), argument(node, 3, "eps")
    out = x * torch.rsqrt((x**2).sum(dims, keepdim=True) / size + (torch.finfo(x.dtype).eps if eps is None else eps))
    return out if weight is None else out * run.value(weight)


def _recurrent(run: Pass, node: fx.Node, call: Call) -> Any:
    """Channels that are off say nothing to the hidden units, and those that are off nothing to each other."""
    given, ways = tensor(node, 0), 1 + bool(node.args[7])
    x, mask = run.value(given), run.mask_of(given, (run.value(given).dim() - 1,))
    each = len(call.args[2]) // (int(call.args[4]) * ways)  # weights per layer and direction
    weights = []
    for i, weight in enumerate(call.args[2]):
        first = i < each * ways and i % each == 0  # reads what enters, of which other channels may be off per example
        off = run.weight_mask(weight, 1) if run.value(weight).dim() == 2 and not first else None
        weights.append(run.value(weight) if off is None else run.value(weight) * off)
    states = map_arg(call.args[1], run.value)
    return call.target(x if mask is None else x * mask, states, weights, *call.args[3:])


MASKED: Mapping[str, Callable[[Pass, fx.Node, Call], Any]] = MappingProxyType(
    {
        "layer_norm": _layer_norm,
        "group_norm": _group_norm,
        "batch_norm": _batch_norm,
        "mean": _mean,
        **dict.fromkeys(GATES, _recurrent),
        "rms_norm": _rms_norm,
        **dict.fromkeys(("var", "std", "var_mean", "std_mean"), _spread),
    }
)
"""Operator -> what runs instead where there are masks."""

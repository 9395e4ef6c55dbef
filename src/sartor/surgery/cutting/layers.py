"""Convolutions and linear layers of a graph, as rows of what enters them and of what they give."""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx, nn

from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.analysis.tracker import argument, operator_name
from sartor.surgery.cutting.slicing import Engine

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


def is_layer(skeleton: Skeleton, node: fx.Node) -> bool:
    """Whether a node is a convolution or a linear layer with parameters of its own, used once."""
    name = operator_name(node)
    if name in _CONVOLUTIONS and isinstance(argument(node, 4, "padding", 0), str):
        return False
    if name != "linear" and name not in _CONVOLUTIONS:
        return False
    weights = [w for w in (argument(node, 1, "weight", None), argument(node, 2, "bias", None)) if w is not None]
    return all(isinstance(w, fx.Node) and w.name in skeleton.weights and len(w.users) == 1 for w in weights)


def bias_is_free(engine: Engine, node: fx.Node) -> bool:
    """Whether a constant added to the layer's outputs costs nothing: it has a bias, or a batch norm takes the mean."""
    return argument(node, 2, "bias", None) is not None or (
        len(node.users) == 1 and next(iter(node.users)) in engine.norms
    )


def rows(node: fx.Node, x: Tensor, y: Tensor, weight: Tensor, pick: Tensor) -> tuple[Tensor, Tensor]:
    """What a layer sees and gives at some of its places (`places`); arguments and results as of `patches`."""
    if operator_name(node) != "linear":
        return patches(node, x, y, weight, pick)
    return x.reshape(1, -1, x.shape[-1])[:, pick], y.reshape(1, -1, y.shape[-1])[:, pick]


def places(node: fx.Node, x: Tensor, y: Tensor) -> int:
    """How often a layer uses its weights on a batch."""
    return x.numel() // x.shape[-1] if operator_name(node) == "linear" else len(x) * math.prod(y.shape[2:])


def patches(node: fx.Node, x: Tensor, y: Tensor, weight: Tensor, pick: Tensor) -> tuple[Tensor, Tensor]:
    """What a convolution sees and gives at some places.

    Args:
        node: The convolution.
        x: What enters, `(batch, channels, ...)`.
        y: What comes out, `(batch, outputs, ...)`.
        weight: Its weight.
        pick: Which of all `batch * places`, `(rows,)`.

    Returns:
        `(groups, rows, inputs)`, channel by channel, each with its taps; and `(groups, rows, outputs)`.
    """
    rank = x.dim() - 2
    stride, padding, dilation = (
        _each(argument(node, at, name, default), rank)
        for at, name, default in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
    )
    groups, places = x.shape[1] // weight.shape[1], math.prod(y.shape[2:])
    image, place = pick // places, torch.unravel_index(pick % places, y.shape[2:])
    steps = torch.cartesian_prod(*(torch.arange(k, device=x.device) for k in weight.shape[2:])).reshape(-1, rank)
    at = [place[d][:, None] * stride[d] + steps[None, :, d] * dilation[d] for d in range(rank)]
    padded = nn.functional.pad(x, [p for size in reversed(padding) for p in (size, size)])
    seen = padded.movedim(1, -1)[(image[:, None], *at)]  # (rows, kernel, channels)
    inputs = seen.mT.reshape(len(pick), groups, -1).transpose(0, 1)
    wanted = y.movedim(1, -1)[(image, *place)].reshape(len(pick), groups, -1).transpose(0, 1)
    return inputs, wanted


def _each(value: int | list[int], rank: int) -> list[int]:
    """One number per dimension."""
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values

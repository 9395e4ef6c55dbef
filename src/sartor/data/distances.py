"""Errors of depth maps, over the pixels whose depth is known: all give one number per example, `(batch,)`.

An output is metres, `(batch, 1, H, W)` or `(batch, H, W)`; a target the same, 0 where the depth is not known. Losses of
an example without a known pixel are 0, measures NaN, which do not count.

Source: Eigen, Puhrsch, Fergus 2014 (arXiv:1406.2283), section 3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NEAREST = 1e-3
"""Metres: what an output is raised to where a ratio is taken."""

TANGENT = 0.1
"""Metres: nearer than that a logarithm goes on as its tangent, or an output that starts below 0 would never move."""


def absolute_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error in metres; a loss."""
    output, known = _like(output, target)
    return _mean((output - target).abs(), known)


def scale_invariant(output: Tensor, target: Tensor, share: float = 0.5) -> Tensor:
    """Mean square of the error of logarithms, less `share` of the square of its mean (equation 4); a loss."""
    output, known = _like(output, target)
    error = _logarithm(output) - _logarithm(target)
    return _mean(error.square(), known) - share * _mean(error, known).square()


def root_mean_squared(output: Tensor, target: Tensor) -> Tensor:
    """Root mean squared error in metres."""
    output, known = _like(output, target)
    return _mean((output - target).square(), known, math.nan).sqrt()


def absolute_relative(output: Tensor, target: Tensor) -> Tensor:
    """Mean of the absolute error as a share of the true depth."""
    output, known = _like(output, target)
    return _mean((output - target).abs() / target.clamp(min=NEAREST), known, math.nan)


def within(output: Tensor, target: Tensor, factor: float = 1.25) -> Tensor:
    """Share of the pixels that are neither `factor` times too far nor too near: delta 1."""
    output, known = _like(output, target)
    a, b = output.clamp(min=NEAREST), target.clamp(min=NEAREST)
    return _mean((torch.maximum(a / b, b / a) < factor).to(output.dtype), known, math.nan)


def _logarithm(metres: Tensor) -> Tensor:
    far = metres.clamp(min=TANGENT)
    return far.log() + (metres - far) / TANGENT


def _like(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The output in the target's shape, and where the depth is known."""
    if output.numel() != target.numel() or output.shape[-2:] != target.shape[-2:]:
        raise ValueError(f"an output of {tuple(output.shape)} is no depth map for a target of {tuple(target.shape)}")
    return output.reshape(target.shape), target > 0


def _mean(values: Tensor, known: Tensor, none: float = 0.0) -> Tensor:
    """The mean over the known pixels of each example; `none` without any."""
    # `where`, not a product: an infinite value at an unknown pixel must not count
    kept = torch.where(known, values, torch.zeros_like(values)).flatten(1).sum(1)
    count = known.flatten(1).sum(1)
    return torch.where(count > 0, kept / count.clamp(min=1), torch.full_like(kept, none))

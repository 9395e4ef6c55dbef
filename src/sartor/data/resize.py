"""Bicubic resizing as MATLAB's `imresize` does it: what "bicubic" means in all of super-resolution.

Kernel of Keys 1981 (a = -0.5), widened by the factor when it shrinks (antialiasing), mirrored at the borders. Pillow is
within 0.02 dB of it; torch's `interpolate` without `antialias` is another thing, and so is OpenCV.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sartor.core.errors import ConfigError


def imresize(pictures: Tensor, factor: float) -> Tensor:
    """Pictures, `(..., H, W)`, enlarged by `factor` (shrunk below 1), to `(..., ceil(H factor), ceil(W factor))`.

    Args:
        pictures: Floating point, in any range; the result may go a little beyond it.
        factor: Positive.

    Raises:
        ConfigError: The factor is not positive, or the pictures are no floating-point numbers.
    """
    if not factor > 0 or not pictures.is_floating_point():
        raise ConfigError(
            f"imresize needs a factor above 0 and floating-point pictures, got {factor}, {pictures.dtype}"
        )
    for axis in (-2, -1):
        pictures = _along(pictures, axis, factor)
    return pictures


def _along(pictures: Tensor, axis: int, factor: float) -> Tensor:
    indices, weights = contributions(pictures.shape[axis], factor)
    shape = [1] * pictures.dim()
    shape[axis] = -1
    total = torch.zeros(())
    for index, weight in zip(indices.T, weights.to(pictures.dtype).T, strict=True):  # tap by tap, to save memory
        total = total + pictures.index_select(axis, index) * weight.reshape(shape)
    return total


def contributions(length: int, factor: float) -> tuple[Tensor, Tensor]:
    """Which of `length` samples make up each sample of the result, and how much: both `(ceil(length factor), taps)`."""
    stretch = min(factor, 1.0)
    width = 4 / stretch
    # a sample's centre in the coordinates of the original, both counted from 0
    centre = (torch.arange(math.ceil(length * factor), dtype=torch.float64) + 0.5) / factor - 0.5
    first = torch.floor(centre - width / 2)
    indices = first[:, None] + torch.arange(math.ceil(width) + 2)
    weights = cubic(stretch * (centre[:, None] - indices))
    mirrored = indices.long() % (2 * length)
    mirrored = torch.where(mirrored < length, mirrored, 2 * length - 1 - mirrored)
    used = (weights != 0).any(0)
    return mirrored[:, used], (weights / weights.sum(1, keepdim=True))[:, used]


def cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5 (IEEE Trans. Acoustics, Speech and Signal Processing 29, 1981, equation 15)."""
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))

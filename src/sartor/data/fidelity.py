"""How near a picture is to another: PSNR and SSIM on the luminance, as super-resolution reports them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

EXACT = 100.0
"""PSNR of two equal pictures, in dB; without a limit it were infinite, and so would be the mean over pictures."""


def luminance(pictures: Tensor) -> Tensor:
    """Y of ITU-R BT.601 in studio range (16..235), as MATLAB's `rgb2ycbcr` gives it, without rounding.

    Args:
        pictures: Red, green, blue in 0..255, `(batch, 3, H, W)`.

    Returns:
        `(batch, 1, H, W)`.
    """
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=pictures.dtype, device=pictures.device) / 255
    return 16 + (pictures * weights.reshape(1, 3, 1, 1)).sum(1, keepdim=True)


def eight_bit(pictures: Tensor) -> Tensor:
    """Pictures in 0..255 as a file would hold them: rounded and clamped, still floating point, `(...)`."""
    return pictures.round().clamp(0, 255)


def without_border(pictures: Tensor, border: int) -> Tensor:
    """The picture without `border` pixels on every side, `(..., H, W)`."""
    return pictures[..., border : pictures.shape[-2] - border, border : pictures.shape[-1] - border]


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures in 0..255, `(batch, ...) -> (batch,)`; at most `EXACT`."""
    error = (output.double() - target.double()).square().flatten(1).mean(1)
    return (10 * torch.log10(255**2 / error)).clamp(max=EXACT)


def ssim(output: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of pictures in 0..255, `(batch, 1, H, W) -> (batch,)`.

    Wang et al. 2004 (IEEE Transactions on Image Processing 13): a Gaussian window of 11 x 11 with sigma 1.5, K1 = 0.01,
    K2 = 0.03, the mean over the windows that lie inside. Pictures below 11 x 11 take the largest window that fits.
    """
    a, b = output.double(), target.double()
    rows, columns = (_window(min(11, side), a.device) for side in a.shape[-2:])

    def blurred(values: Tensor) -> Tensor:
        return functional.conv2d(functional.conv2d(values, rows.reshape(1, 1, -1, 1)), columns.reshape(1, 1, 1, -1))

    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    both = blurred(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return found.flatten(1).mean(1)


def _window(length: int, device: torch.device) -> Tensor:
    x = torch.arange(length, dtype=torch.float64, device=device) - (length - 1) / 2
    weights = torch.exp(-(x**2) / (2 * 1.5**2))
    return weights / weights.sum()

"""Small networks for the tasks with pictures as answers: plain convolutions, made to be trained on a CPU.

From this folder: sartor fit --network networks:sr_x2 --data super_resolution:TRAIN,TEST --budget latency_ms=50%
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Convolution, normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Residual(nn.Module):
    """Two convolutions and what came in, without normalisation (Lim et al. 2017, figure 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(x)))


class SuperResolution(nn.Module):
    """A small EDSR: residual blocks on the small picture, then a pixel shuffle.

    Args:
        scale: How much larger the output is.
        width: Channels inside.
        blocks: Residual blocks.
        channels: Of the pictures.
    """

    def __init__(self, scale: int = 2, width: int = 32, blocks: int = 4, channels: int = 3) -> None:
        super().__init__()
        self.head = nn.Conv2d(channels, width, 3, padding=1)
        self.body = nn.Sequential(*(Residual(width) for _ in range(blocks)))
        self.tail = nn.Conv2d(width, width, 3, padding=1)
        self.up = nn.Sequential(nn.Conv2d(width, channels * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        """Pictures `(batch, channels, H, W)` to `(batch, channels, scale H, scale W)`."""
        x = self.head(x)
        return self.up(x + self.tail(self.body(x)))


class UNet(nn.Module):
    """A small U-Net (Ronneberger et al. 2015) that works at half of the picture's resolution and below.

    Args:
        outputs: Channels of the output.
        widths: Channels at each resolution, the finest (half of the picture's) first.
        channels: Of the pictures.
    """

    def __init__(self, outputs: int, widths: tuple[int, ...] = (24, 48, 96), channels: int = 3) -> None:
        super().__init__()
        before = (channels, *widths)
        self.down = nn.ModuleList(
            nn.Sequential(conv(before[i], width, 2), conv(width, width)) for i, width in enumerate(widths)
        )
        self.middle = nn.Sequential(conv(widths[-1], widths[-1]), conv(widths[-1], widths[-1]))
        self.up = nn.ModuleList(conv(widths[i] + widths[i - 1], widths[i - 1]) for i in range(len(widths) - 1, 0, -1))
        self.larger = nn.Upsample(scale_factor=2, mode="nearest")
        self.head = nn.Sequential(nn.Conv2d(widths[0], 4 * outputs, 1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """Pictures `(batch, channels, H, W)`, sides divisible by 8, to `(batch, outputs, H, W)`."""
        finer = []
        for step in self.down:
            x = step(x)
            finer.append(x)
        x = self.middle(x)
        for step, kept in zip(self.up, reversed(finer[:-1]), strict=True):
            x = step(torch.cat([self.larger(x), kept], 1))
        return self.head(x)


class Depth(nn.Module):
    """An encoder and a decoder with additions between equal resolutions; softplus keeps metres positive.

    Args:
        widths: Channels at each resolution, the finest (half of the picture's) first.
    """

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96, 128)) -> None:
        super().__init__()
        before = (3, *widths)
        self.down = nn.ModuleList(
            nn.Sequential(conv(before[i], width, 2), conv(width, width)) for i, width in enumerate(widths)
        )
        self.up = nn.ModuleList(conv(widths[i], widths[i - 1]) for i in range(len(widths) - 1, 0, -1))
        self.smooth = nn.ModuleList(conv(w, w) for w in reversed(widths[:-1]))
        self.larger = nn.Upsample(scale_factor=2, mode="nearest")
        self.head = nn.Sequential(nn.Conv2d(widths[0], 4, 3, padding=1), nn.PixelShuffle(2), nn.Softplus())

    def forward(self, x: Tensor) -> Tensor:
        """Pictures `(batch, 3, H, W)`, sides divisible by 16, to metres, `(batch, 1, H, W)`."""
        finer = []
        for step in self.down:
            x = step(x)
            finer.append(x)
        for step, smooth, kept in zip(self.up, self.smooth, reversed(finer[:-1]), strict=True):
            x = smooth(self.larger(step(x)) + kept)
        return self.head(x)


def sr_x2() -> SuperResolution:
    """Twice as large, in colour."""
    return SuperResolution(2)


def sr_x3() -> SuperResolution:
    """Three times as large, in colour."""
    return SuperResolution(3)


def camvid() -> UNet:
    """CamVid's eleven classes."""
    return UNet(11)


def nyu_depth() -> Depth:
    """Metres, for rooms."""
    return Depth()

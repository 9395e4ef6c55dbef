"""Small networks for the tasks audio, multisource, regression and imitate: plain modules, each trained on one core.

From this folder: sartor fit --network networks_other:spoken_digits --data audio:FILE --budget macs=50%
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv(inputs: int, outputs: int, stride: int | tuple[int, int] = 1) -> nn.Sequential:
    """Convolution, normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def spoken_digits() -> nn.Module:
    """Log-mel spectrograms, `(batch, 1, 40, frames)`, to logits of ten words, `(batch, 10)`."""
    return nn.Sequential(
        conv(1, 24, 2),
        conv(24, 32),
        conv(32, 48, 2),
        conv(48, 64),
        conv(64, 96, 2),
        conv(96, 96),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(96, 10),
    )


class Water(nn.Module):
    """Two sources, one encoder each; their features meet, and a decoder answers for every pixel.

    Args:
        bands: Channels of the optical image.
        classes: Of a pixel.
    """

    def __init__(self, bands: int = 7, classes: int = 2) -> None:
        super().__init__()
        self.optical = nn.Sequential(conv(bands, 24), conv(24, 24))
        self.ground = nn.Sequential(conv(1, 8), conv(8, 8))
        self.down = nn.Sequential(conv(32, 48, 2), conv(48, 48))
        self.deep = nn.Sequential(conv(48, 64, 2), conv(64, 64))
        self.middle = conv(64 + 48, 48)
        self.fine = conv(48 + 32, 32)
        self.head = nn.Conv2d(32, classes, 1)

    def forward(self, optical: Tensor, ground: Tensor) -> Tensor:
        """`(batch, bands, H, W)` and `(batch, 1, H, W)` to `(batch, classes, H, W)`; H and W are multiples of 4."""
        seen = torch.cat([self.optical(optical), self.ground(ground)], 1)
        half = self.down(seen)
        up = functional.interpolate(self.deep(half), scale_factor=2.0, mode="nearest")
        up = self.middle(torch.cat([up, half], 1))
        up = functional.interpolate(up, scale_factor=2.0, mode="nearest")
        return self.head(self.fine(torch.cat([up, seen], 1)))


def water() -> nn.Module:
    """Seven optical bands and the elevation to water or no water."""
    return Water()


def widths_accuracy() -> nn.Module:
    """Five numbers, `(batch, 5)`, to one, `(batch, 1)`."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((5, 96), (96, 96), (96, 96)):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(96, 1))


class Block(nn.Module):
    """Two 3x3 convolutions; where the size changes, the shortcut takes every second pixel and pads channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.margin = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.margin:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.margin, self.margin))
        return torch.relu(y + x)


class Backbone(nn.Module):
    """The CIFAR ResNet-20 (He et al. 2016, section 4.2) as others build upon it: two feature maps and the logits.

    Its parameters are called as those of akamaster/pytorch_resnet_cifar10, so their trained weights fit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images `(batch, 3, 32, 32)` to maps `(batch, 32, 16, 16)` and `(batch, 64, 8, 8)`, and `(batch, 10)`."""
        middle = self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x)))))
        last = self.layer3(middle)
        return {"middle": middle, "last": last, "logits": self.linear(last.mean((2, 3)))}


def cifar_backbone() -> nn.Module:
    """The backbone, untrained."""
    return Backbone()

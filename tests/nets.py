"""Small networks of many kinds, for the tests of `surgery` and of the space of widths."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sartor.core.rng import global_seed


class Residual(nn.Module):
    """A stem, a residual block, a depthwise separable convolution, a classifier: three groups of channels."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.expand = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.bn_expand = nn.BatchNorm2d(12)
        self.reduce = nn.Conv2d(12, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, stride=2, groups=8)
        self.pointwise = nn.Conv2d(8, 16, 1)
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        x = x + self.reduce(torch.relu(self.bn_expand(self.expand(x))))
        x = torch.relu(self.pointwise(self.depthwise(x)))
        return self.head(x.mean((2, 3)))


class Branches(nn.Module):
    """Two branches side by side, squeeze-and-excitation, a grouped and a transposed convolution, group norm."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 8, 3, padding=1)
        self.right = nn.Conv2d(3, 12, 1)
        self.squeeze = nn.Conv2d(20, 6, 1)
        self.excite = nn.Conv2d(6, 20, 1)
        self.mix = nn.Conv2d(20, 16, 1)
        self.grouped = nn.Conv2d(16, 24, 3, padding=1, groups=4)
        self.norm = nn.GroupNorm(4, 24)
        self.up = nn.ConvTranspose2d(24, 10, 2, stride=2)
        self.head = nn.Conv2d(10, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(torch.cat([self.left(x), self.right(x)], 1))
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        x = torch.relu(self.mix(x * gate))
        x = torch.relu(self.up(torch.relu(self.norm(self.grouped(x)))))
        return self.head(x).mean((2, 3))


class Tokens(nn.Module):
    """A transformer layer on patches: attention heads, layer norm, an MLP, dropout."""

    def __init__(self, *, heads: int = 4, width: int = 24, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.before = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.after = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)  # (batch, tokens, width)
        n, tokens, _ = x.shape
        q, k, v = self.qkv(self.before(x)).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(seen.transpose(1, 2).reshape(n, tokens, -1))
        x = x + self.down(self.dropout(functional.gelu(self.up(self.after(x)))))
        return self.head(x.mean(1))


class Waves(nn.Module):
    """One-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 8, 5, stride=2, padding=2)
        self.bn = nn.BatchNorm1d(8)
        self.second = nn.Conv1d(8, 12, 3, bias=False)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.bn(self.first(x))))).mean(2))


class Numbers(nn.Module):
    """The number of channels stands in the code of forward: only a graph can be narrower."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 12, 1)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 12))
        self.head = nn.Linear(12 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.first(x)))
        x = x.view(x.shape[0], 8, 64).view(x.shape[0], 8, 8, 8)
        x = functional.max_pool2d(torch.relu(self.second(x)), 2) * self.scale.view(1, 12, 1, 1)
        return self.head(x.reshape(-1, 12 * 16))


class _Basic(nn.Module):
    """A residual block; where it has more channels than enter, the shortcut is strided and padded with zeros."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, 1 if c_in == c_out else 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.margin = (c_out - c_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        if self.margin:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.margin, self.margin))
        y += x
        return self.act(y)


class Stages(nn.Module):
    """A residual network of two stages for small images, which works in place."""

    def __init__(self, classes: int = 5, width: int = 8) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(_Basic(width, width), _Basic(width, width))
        self.layer2 = nn.Sequential(_Basic(width, 2 * width), _Basic(2 * width, 2 * width))
        self.linear = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.bn1(self.conv1(x)))
        return self.linear(self.layer2(self.layer1(x)).mean((2, 3)))


class Gate(nn.Module):
    """What happens depends on values, not on shapes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return torch.relu(self.layer(x))
        return self.layer(x)


class Gated(nn.Module):
    """A part that cannot be traced in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.gate = Gate(8)
        self.second = nn.Conv2d(8, 12, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(self.gate(self.first(x)))).mean((2, 3)))


def random_(network: nn.Module, seed: int = 0) -> nn.Module:
    """Other weights, scales and running statistics than the initial ones, in place."""
    with global_seed(seed), torch.no_grad():
        for value in (*network.parameters(), *network.buffers()):
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.5 if value.dim() < 2 else torch.randn_like(value) * 0.3)
    return network


def residual() -> nn.Module:
    return Residual()


def branches() -> nn.Module:
    return Branches()


def tokens() -> nn.Module:
    return Tokens()


def numbers() -> nn.Module:
    return Numbers()


def digits() -> nn.Module:
    """For one channel and ten classes."""
    network = Residual(10)
    network.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
    return network

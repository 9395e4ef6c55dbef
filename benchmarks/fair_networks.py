"""Small networks of eight families for CIFAR-10, which nothing here was tuned for; and how their teachers are trained.

    OMP_NUM_THREADS=1 python benchmarks/fair_networks.py --data DIR --out DIR [--only vgg vit] [--minutes 20]

Each is trained for `--minutes` of processor time on 45,000 of the 50,000 training images (augmented by crops and
flips); the other 5,000 are validation. Weights and a JSON file with the accuracies go to `--out`; what is there already
is not trained again.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from sartor.core.files import atomically
from sartor.core.rng import global_seed

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VALID = 5000
BATCH = 128


def _unit(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, *, act: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(c_out),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if act else []))


class Vgg(nn.Sequential):
    """Plain convolutions with batch norm and pooling (Simonyan and Zisserman, ICLR 2015)."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        c_in = 3
        for width in (16, 16, 0, 32, 32, 0, 64, 64, 0, 128, 128):
            layers += [nn.MaxPool2d(2)] if not width else [_unit(c_in, width, 3)]
            c_in = width or c_in
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_in, 10))


class Inverted(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = c_in * expand
        self.body = nn.Sequential(
            _unit(c_in, inner, 1), _unit(inner, inner, 3, stride, inner), _unit(inner, c_out, 1, act=False)
        )
        self.skip = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.skip else y


class MobileNet(nn.Sequential):
    """Inverted residuals (Sandler et al., CVPR 2018)."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [_unit(3, 16, 3)]
        c_in = 16
        for c_out, count, stride in ((16, 1, 1), (24, 2, 2), (40, 3, 2), (64, 2, 2)):
            for i in range(count):
                layers.append(Inverted(c_in, c_out, stride if i == 0 else 1, 4))
                c_in = c_out
        super().__init__(*layers, _unit(c_in, 160, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(160, 10))


class Dense(nn.Module):
    def __init__(self, c_in: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(c_in), nn.Conv2d(c_in, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(functional.relu(self.norm2(y)))], 1)


class DenseNet(nn.Sequential):
    """Concatenated features (Huang et al., CVPR 2017), growth 10, three blocks of five layers."""

    def __init__(self, growth: int = 10, count: int = 5) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, 2 * growth, 3, 1, 1, bias=False)]
        width = 2 * growth
        for block in range(3):
            for _ in range(count):
                layers.append(Dense(width, growth))
                width += growth
            if block < 2:
                layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Conv2d(width, width // 2, 1, bias=False)]
                layers.append(nn.AvgPool2d(2))
                width //= 2
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        super().__init__(*layers, nn.Linear(width, 10))


class Grouped(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _unit(c_in, c_out, 1), _unit(c_out, c_out, 3, stride, c_out // width), _unit(c_out, c_out, 1, act=False)
        )
        self.shortcut = _unit(c_in, c_out, 1, stride, act=False) if stride > 1 or c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.shortcut(x) + self.body(x))


class RegNet(nn.Sequential):
    """Residual bottlenecks of grouped convolutions (Radosavovic et al., CVPR 2020), groups of 8 channels."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [_unit(3, 24, 3)]
        c_in = 24
        for c_out, count, stride in ((24, 2, 1), (48, 3, 2), (96, 3, 2)):
            for i in range(count):
                layers.append(Grouped(c_in, c_out, stride if i == 0 else 1, 8))
                c_in = c_out
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_in, 10))


class Norm(nn.LayerNorm):
    """Over the channels of `(batch, channels, height, width)`."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Next(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(functional.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNext(nn.Sequential):
    """Depthwise 7x7 and an inverted bottleneck with layer norm (Liu et al., CVPR 2022)."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 2, 2), Norm(32), Next(32), Next(32)]
        layers += [Norm(32), nn.Conv2d(32, 64, 2, 2), Next(64), Next(64), Next(64)]
        layers += [Norm(64), nn.Conv2d(64, 96, 2, 2), Next(96), Next(96)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(96), nn.Linear(96, 10))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(batch, length, -1))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Vit(nn.Module):
    """Patches of 4x4 behind a convolution, five layers of self-attention (Dosovitskiy et al., ICLR 2021)."""

    def __init__(self, width: int = 64, heads: int = 4, depth: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(_unit(3, 24, 3, 2), nn.Conv2d(24, width, 2, 2))
        self.place = nn.Parameter(0.02 * torch.randn(1, 64, width))
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2) + self.place
        return self.head(self.norm(self.layers(x)).mean(1))


class Kind(NamedTuple):
    """A family: how to make one, and how it trains best."""

    make: Callable[[], nn.Module]
    lr: float
    adam: bool = False
    half: bool = True  # bfloat16, where that is faster on a CPU


KINDS = {
    "vgg": Kind(Vgg, 0.2),
    "mobilenet": Kind(MobileNet, 0.2),
    "densenet": Kind(DenseNet, 0.2),
    "regnet": Kind(RegNet, 0.2),
    "convnext": Kind(ConvNext, 4e-3, adam=True),
    "vit": Kind(Vit, 2e-3, adam=True, half=False),
}


class Images(NamedTuple):
    """`(n, 3, 32, 32)` bytes and `(n,)` labels."""

    pictures: Tensor
    labels: Tensor


def images(file: Path) -> Images:
    """CIFAR-10 from a parquet file with `png` and `label`, in an order drawn once (files may be sorted by class)."""
    table = pq.read_table(file).to_pydict()
    order = np.random.default_rng(0).permutation(len(table["label"]))
    pictures = np.stack([np.asarray(Image.open(io.BytesIO(table["png"][i]))) for i in order])
    labels = torch.tensor([table["label"][i] for i in order])
    return Images(torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), labels)


def normalised(pictures: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (MEAN, STD))
    return (pictures.float() / 255 - mean) / std


def augmented(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Crops from four pixels of zeros around, and flips; `(batch, 3, 32, 32)`, normalised."""
    x = functional.pad(normalised(pictures), (4, 4, 4, 4))
    top, left = torch.randint(9, (2, len(x)), generator=generator)
    rows = (top[:, None] + torch.arange(32))[:, None, :, None]
    columns = (left[:, None] + torch.arange(32))[:, None, None, :]
    flip = torch.rand(len(x), generator=generator) < 0.5
    columns = torch.where(flip[:, None, None, None], columns.flip(3), columns)
    return x[torch.arange(len(x))[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns]


def batches(found: Images, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(found.labels), generator=generator)
    for at in order.split(BATCH)[: len(order) // BATCH]:
        yield augmented(found.pictures[at], generator), found.labels[at]


@torch.no_grad()
def accuracy(network: nn.Module, found: Images) -> float:
    network.eval()
    right = [
        (network(normalised(x)).argmax(1) == y).sum()
        for x, y in zip(found.pictures.split(500), found.labels.split(500), strict=True)
    ]
    return float(sum(right)) / len(found.labels)


def trained(kind: Kind, found: Images, minutes: float, seed: int = 0) -> tuple[nn.Module, float]:
    """A network, and how many epochs the time was enough for: the rate falls with the time that is used up."""
    with global_seed(seed):
        network, generator = kind.make(), torch.Generator().manual_seed(seed)
    weights = [
        {"params": [p for p in network.parameters() if p.dim() > 1], "weight_decay": 0.05 if kind.adam else 5e-4}
    ]
    weights.append({"params": [p for p in network.parameters() if p.dim() <= 1], "weight_decay": 0.0})
    optimizer: torch.optim.Optimizer = (
        torch.optim.AdamW(weights, lr=kind.lr)
        if kind.adam
        else torch.optim.SGD(weights, lr=kind.lr, momentum=0.9, nesterov=True)
    )
    start, limit, steps, epoch = time.process_time(), 60 * minutes, 0, 0
    while True:
        network.train()
        for x, y in batches(found, generator):
            share = (time.process_time() - start) / limit
            if share >= 1:
                return network, steps * BATCH / len(found.labels)
            for group in optimizer.param_groups:
                group["lr"] = kind.lr * min((steps + 1) / 300, 0.5 * (1 + math.cos(math.pi * share)))
            with torch.autocast("cpu", torch.bfloat16, enabled=kind.half):
                loss = functional.cross_entropy(network(x).float(), y, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
        epoch += 1
        print(f"  epoch {epoch}, {share:.0%} of the time, loss {float(loss):.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with CIFAR-10's train.parquet, test.parquet")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--minutes", type=float, default=20.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    found, test = images(args.data / "train.parquet"), images(args.data / "test.parquet")
    train, valid = Images(*(t[:-VALID] for t in found)), Images(*(t[-VALID:] for t in found))
    for name in args.only:
        facts = args.out / f"{name}.json"
        if facts.exists():
            continue
        print(name, flush=True)
        network, epochs = trained(KINDS[name], train, args.minutes)
        atomically(args.out / f"{name}.safetensors", lambda part, n=network: save_file(n.state_dict(), part))
        scores = {"epochs": epochs, "valid": accuracy(network, valid), "test": accuracy(network, test)}
        atomically(facts, lambda part, s=scores: part.write_text(json.dumps(s)))
        print(name, scores, flush=True)


if __name__ == "__main__":
    main()

"""Networks that are a chain of convolutions and separable convolutions, plain or elastic."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from sartor.core import trees
from sartor.core.contracts import Supernet
from sartor.core.records import Arch, Axis, Choice, Layer
from sartor.core.trees import Inputs
from sartor.supernet.elastic import ELASTIC, PLAIN, ElasticConv, ElasticNorm, Kit, inherit
from sartor.supernet.gates import Cut, cut


@dataclass(frozen=True)
class Unit:
    """One layer: a 3x3 convolution, or a depthwise 3x3 followed by a pointwise one, each with norm and ReLU."""

    name: str
    kind: Literal["conv", "separable"]
    stride: int
    widths: tuple[int, ...]


@dataclass(frozen=True)
class Chain:
    """Units in a row, then global average pooling and a linear classifier; one width choice per unit."""

    units: tuple[Unit, ...]
    in_channels: int
    size: int
    classes: int

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The width choices, named like the units."""
        return tuple(Choice(u.name, u.widths, ordered=True) for u in self.units)

    def build(self, arch: Arch) -> nn.Module:
        """The network of `arch`, of torch's own modules only."""
        return self.network([u.widths[a] for u, a in zip(self.units, arch, strict=True)], PLAIN)

    def network(self, widths: Sequence[int], kit: Kit) -> nn.Sequential:
        """The network with these widths, made of the layers of `kit`."""
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        c_in = self.in_channels
        for unit, c_out in zip(self.units, widths, strict=True):
            parts[unit.name] = nn.Sequential(OrderedDict(_modules(unit, c_in, c_out, kit)))
            c_in = c_out
        parts["pool"] = nn.AdaptiveAvgPool2d(1)
        parts["flatten"] = nn.Flatten()
        parts["classifier"] = kit.linear(c_in, self.classes)
        return nn.Sequential(parts)

    def layers(self) -> tuple[Layer, ...]:
        """One layer per unit, and the classifier."""
        layers: list[Layer] = []
        size, axis = (self.size, self.size), Axis((self.in_channels,))
        for i, unit in enumerate(self.units):
            out = Axis(unit.widths, i)
            layers.append(Layer(unit.name, unit.kind, size, 3, unit.stride, False, axis, out))
            size, axis = layers[-1].key((0,) * len(self.units)).out_size, out
        layers.append(Layer("classifier", "linear", (1, 1), 1, 1, True, axis, Axis((self.classes,))))
        return tuple(layers)


def _modules(unit: Unit, c_in: int, c_out: int, kit: Kit) -> Iterator[tuple[str, nn.Module]]:
    if unit.kind == "conv":
        yield "conv", kit.conv(c_in, c_out, 3, unit.stride, 1, bias=False)
    else:
        yield "depthwise", kit.conv(c_in, c_in, 3, unit.stride, 1, groups=c_in, bias=False)
        yield "depthwise_norm", kit.norm(c_in)
        yield "depthwise_relu", nn.ReLU(inplace=True)
        yield "pointwise", kit.conv(c_in, c_out, 1, bias=False)
    yield "norm", kit.norm(c_out)
    yield "relu", nn.ReLU(inplace=True)


class ChainSupernet(Supernet):
    """All networks of a chain, as one with the widest weights."""

    def __init__(self, chain: Chain) -> None:
        super().__init__()
        self.chain = chain
        self.network = chain.network([max(u.widths) for u in chain.units], ELASTIC)

    def forward(self, x: Inputs, gates: Sequence[Tensor]) -> Tensor:
        """Logits `(batch, classes)`; see `Supernet.forward`."""
        y = trees.single(x, self)
        here = Cut(y.shape[1])
        stages = list(self.network)
        units, tail = stages[: len(gates)], stages[len(gates) :]
        for unit, layers, gate in zip(self.chain.units, units, gates, strict=True):
            out = cut(gate, unit.widths)
            for layer in cast(nn.Sequential, layers):
                if isinstance(layer, ElasticConv):
                    here = here if layer.depthwise else out
                    y = layer(y, here)
                elif isinstance(layer, ElasticNorm):
                    y = layer(y, here)
                else:  # the norm has made masked channels non-zero; soft gates scale once per unit
                    y = here.scale(layer(y)) if here is out else here.hide(layer(y))
        for layer in tail:
            y = layer(y)
        return y

    def extract(self, arch: Arch) -> nn.Module:
        """The stand-alone network of `arch` with copies of the shared weights."""
        with torch.device("meta"):
            narrow = self.chain.build(arch)
        return inherit(narrow, self.network)

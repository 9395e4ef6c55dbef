"""A width space of five layers, and the latency of a made-up device that is a sum over layers."""

import math

import numpy as np
from torch import nn

from sartor.core.contracts import Space
from sartor.core.records import Arch, Axis, Choice, Layer, LayerKey
from sartor.latency.design import Design
from sartor.latency.samples import Sample

WIDTHS = (8, 16, 24, 32, 48, 64)


class Toy(Space):
    """A convolution, three separable layers (the middle two share their table) and a classifier."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        self.choices = tuple(Choice(f"layer{i}", widths, ordered=True) for i in range(4))

    def build(self, arch: Arch) -> nn.Module:
        return nn.Sequential(*(nn.Linear(1, int(c.options[a])) for c, a in zip(self.choices, arch, strict=True)))

    def layers(self) -> list[Layer]:
        a, b, c, d = (Axis(choice.options, i) for i, choice in enumerate(self.choices))
        return [
            Layer("stem", "conv", (16, 16), 3, 2, False, Axis((3,)), a),
            Layer("one", "separable", (8, 8), 3, 1, False, a, b),
            Layer("two", "separable", (8, 8), 3, 1, False, b, c),
            Layer("three", "separable", (8, 8), 3, 2, False, c, d),
            Layer("classifier", "linear", (1, 1), 1, 1, True, d, Axis((10,))),
        ]


def device(key: LayerKey) -> float:
    """Milliseconds of a layer on the made-up device: a staircase in channels, and slower where weights are many."""
    blocks = math.ceil(key.c_in / 16) * math.ceil(key.c_out / 16)
    return 0.01 + 0.02 * blocks * math.prod(key.out_size) / 64 + 1e-6 * (key.c_in * key.c_out) ** 1.2


def latencies(space: Toy, archs: list[Arch]) -> np.ndarray:
    design = Design(space)
    return design.matrix(archs) @ np.array([device(key) for key in design.keys]) + 0.05


def samples(space: Toy, archs: list[Arch], split: str = "train", noise: float = 0.0, seed: int = 0) -> list[Sample]:
    """Measurements with multiplicative noise."""
    factors = np.exp(noise * np.random.default_rng(seed).standard_normal(len(archs)))
    values = latencies(space, archs) * factors
    return [
        Sample(a, float(v), float(v) * 0.98, float(v) * 1.02, 1.0, split) for a, v in zip(archs, values, strict=True)
    ]

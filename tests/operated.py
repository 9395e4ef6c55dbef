"""A space of operators small enough to enumerate, and the latency of a made-up device."""

from __future__ import annotations

from torch import nn

from sartor.core.contracts import Space
from sartor.core.records import Arch, Choice, Operator, Operators

OPTIONS = ("skip", "k1", "k3", "k5", "k3x2")


class Block(nn.Sequential):
    """A convolution with its norm and activation."""

    def __init__(self, kernel: int, c_in: int, c_out: int, stride: int = 1) -> None:
        conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(c_out), nn.ReLU())


class Head(nn.Sequential):
    """Pooling and a classifier."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class Operations(Space):
    """Stem, blocks of one operation each, or two (the first halves the image and is never skipped), classifier.

    Args:
        blocks: How many are to be chosen.
        channels: Of every block.
        classes: Outputs.
        in_channels: Channels of an image.
        size: Height and width of an image.
    """

    def __init__(
        self, *, blocks: int = 4, channels: int = 8, classes: int = 10, in_channels: int = 1, size: int = 8
    ) -> None:
        self.channels, self.classes = channels, classes
        self.input_shape = (in_channels, size, size)
        names = [OPTIONS[1:4], *[OPTIONS] * (blocks - 1)]
        self.choices = tuple(Choice(f"block{i}", options) for i, options in enumerate(names))

    def build(self, arch: Arch) -> nn.Module:
        found = self.operators()
        chosen = [o for options, a in zip(found.options, arch, strict=True) for o in options[a]]
        stem, head = found.fixed
        return nn.Sequential(*(self.operator(o) for o in [stem, *chosen, head]))

    def operators(self) -> Operators:
        size, c = self.input_shape[1], self.channels
        stem = Operator(f"stem-{size}", self.input_shape)
        head = Operator(f"head-{size // 2}", (c, size // 2, size // 2))
        options = [
            tuple(() if n == "skip" else (Operator(_key(n, s, stride), (c, s, s)),) * _times(n) for n in choice.options)
            for choice, s, stride in self._places()
        ]
        return Operators((stem, head), tuple(options))

    def operator(self, operator: Operator) -> nn.Module:
        kind, *rest = operator.key.split("-")
        channels = operator.input_shape[0]
        if kind == "stem":
            return Block(3, channels, self.channels)
        if kind == "head":
            return Head(channels, self.classes)
        return Block(int(kind[1:]), channels, channels, int(rest[1]))

    def _places(self):
        size = self.input_shape[1]
        for i, choice in enumerate(self.choices):
            yield choice, size if i == 0 else size // 2, 2 if i == 0 else 1


def _times(name: str) -> int:
    return 2 if name.endswith("x2") else 1


def _key(name: str, size: int, stride: int) -> str:
    return f"{name.partition('x')[0]}-{size}-{stride}"


def device(key: str) -> float:
    """Milliseconds of an operator on the made-up device."""
    kind, size, *_ = key.split("-")
    if kind in ("stem", "head"):
        return {"stem": 0.3, "head": 0.05}[kind]
    return 0.02 + 0.01 * int(kind[1:]) ** 1.5 * int(size) ** 2 / 64

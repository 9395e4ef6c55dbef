"""The size space of NATS-Bench: five widths of a fixed cell network, 32,768 networks with published accuracies.

Source: Dong et al., "NATS-Bench: benchmarking NAS algorithms for architecture topology and size" (TPAMI 2021).
MACs are the benchmark's FLOPs, which count the bias of the classifier as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import fx, nn

from sartor.core.abilities import Accounted, Scalable
from sartor.core.contracts import Space
from sartor.core.records import Arch, Axis, Choice, Layer
from sartor.core.tables import Tables
from sartor.spaces import _nats as nats
from sartor.spaces._options import nearest

__all__ = ["NatsSize"]

_WIDTHS = tuple(range(8, 65, 8))
_CONV = "nor_conv_3x3"
_CELL = (_CONV, _CONV, _CONV, nats.SKIP, _CONV, _CONV)


class NatsSize(Space, Accounted, Scalable):
    """A 3x3 convolution and five blocks: cell, residual block, cell, residual block, cell; the blocks in `c1` to `c5`.

    The stem has the width of the first cell. In a cell every node but a skip from its input to its output is a 3x3
    convolution; the skip is a 1x1 convolution where the widths differ. The table of CIFAR-10 belongs to the defaults,
    that of CIFAR-100 to 100 classes, that of ImageNet16-120 to 120 classes and size 16.

    Args:
        classes: Number of outputs.
        size: Height and width of the input.
        in_channels: Channels of the input.
    """

    input_shape: tuple[int, int, int]

    def __init__(self, *, classes: int = 10, size: int = 32, in_channels: int = 3) -> None:
        nats.check(classes, size, in_channels)
        self.choices = tuple(Choice(f"c{i}", _WIDTHS, ordered=True) for i in range(1, 6))
        self.input_shape = (in_channels, size, size)
        self.classes = classes
        self._axes = tuple(Axis(_WIDTHS, i) for i in range(5))
        self._words = tuple(map(str, _WIDTHS))

    def build(self, arch: Arch) -> nn.Module:
        c = [_WIDTHS[a] for a in arch]
        network = nats.Network(
            self.input_shape[0], self.classes, [c[0], *c], (2, 4), lambda a, b: nats.Cell(_CELL, a, b)
        )
        return fx.symbolic_trace(network)  # a graph of torch's own modules only

    def key(self, arch: Arch) -> str:
        return ":".join([self._words[a] for a in arch])

    def scaled(self, factor: float) -> Arch:
        return nearest(self.choices, [factor * _WIDTHS[-1]] * 5)

    def account(self, metric: str) -> Tables | None:
        values = {"macs": nats.macs, "params": nats.params}
        return Tables.of_layers(self.choices, self.layers(), values[metric]) if metric in values else None

    def layers(self) -> Sequence[Layer]:
        return tuple(self._layers())

    def steps(self) -> Sequence[Tables]:
        return tuple(self._steps())

    def _blocks(self) -> Iterator[tuple[int, int, Axis, Axis]]:
        """Number, size, channels before and after."""
        size = self.input_shape[1]
        for i, (x, out) in enumerate(zip((self._axes[0], *self._axes), self._axes, strict=False)):
            yield i, size, x, out
            size = nats.halved(size) if i % 2 else size

    def _layers(self) -> Iterator[Layer]:
        yield nats.stem_layer(self.input_shape[1], self.input_shape[0], self._axes[0])
        for i, size, x, out in self._blocks():
            if i % 2:
                yield from nats.reduction_layers(f"cells.{i}", size, x, out)
                continue
            sources = (x, x, out, x, out, out)
            for edge, (name, source) in enumerate(zip(_CELL, sources, strict=True)):
                kind, kernel = ("skip", 1) if name == nats.SKIP else ("conv", 3)
                yield Layer(f"cells.{i}.layers.{edge}", kind, (size, size), kernel, 1, False, source, out)
        yield nats.classifier_layer(self._axes[-1], self.classes)

    def _steps(self) -> Iterator[Tables]:
        size = self.input_shape[1]
        yield nats.alive(self.choices, (Axis((self.input_shape[0],)), size), (self._axes[0], size))
        for i, size, x, out in self._blocks():
            if i % 2:
                yield from nats.reduction_steps(self.choices, size, x, out)
            else:  # the convolution that ends the second node, and that which starts the sum of the third
                yield nats.alive(self.choices, (x, size), *[(out, size)] * 3)
                yield nats.alive(self.choices, *[(out, size)] * 4)
        yield nats.alive(self.choices, (self._axes[-1], 1), (Axis((self.classes,)), 1))

"""Inverted residual blocks with a choice of kernel and expansion for each, or no block at all.

Source: Cai, Zhu and Han, "ProxylessNAS" (ICLR 2019) for the space and its names of weights and operators;
squeeze-and-excitation and the activation as choices: Bender et al., "TuNAS" (CVPR 2020), the MobileNetV3-like space.
Deviations: no dropout. Squeeze-and-excitation has the form of MobileNet-v3 (Howard et al., ICCV 2019); the activation
of the first and last layers is no choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from sartor.core import trees
from sartor.core.abilities import Accounted, Scalable
from sartor.core.contracts import Space, Supernet
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Choice, Operator, Operators
from sartor.core.tables import Tables
from sartor.core.trees import Inputs
from sartor.spaces._inverted import Block
from sartor.spaces._mbconv import (
    FIRST,
    PRESETS,
    SKIP,
    Menu,
    Named,
    Network,
    Operation,
    Residual,
    Slot,
    operators,
    runs,
)
from sartor.spaces._operators import Catalogue, Catalogued
from sartor.spaces._proxyless import published
from sartor.spaces._staged import initialise
from sartor.supernet.mixed import Mixed, inherit_path

__all__ = ["Mbconv"]


class Mbconv(Catalogued, Space, Accounted, Scalable):
    """A 3x3 convolution, a fixed block without expansion, stages of blocks, a 1x1 convolution, a classifier.

    Each block is one choice, whose options are called `k5e6` (kernel 5, expansion 6), `k5e6-se-hswish`, ...; where the
    block keeps the shape, `skip` is no block. Skips of a stage come last in canonical archs: blocks of one shape in a
    row are the same network wherever the skips between them are.

    The reference is MobileNet-v2-like, the smallest kernel and the largest expansion everywhere (`k3e6`); with `config`
    it is the published network. As no choice sets channels between blocks, `scaled` keeps that share of the reference's
    blocks that may be skipped, and of its expansions on average; the last ones of all stages go first.

    Args:
        preset: `imagenet`, the space of ProxylessNAS; `cifar`, the same for images of 32x32, with strides taken from
            the first layers; `small`, a slim one for 8x8 to 64x64. The settings after `config` go before the preset's.
        config: A network that ProxylessNAS published, as JSON: its stages, and its operations added to what is on
            offer. Fixes everything up to `head`.
        stem: Channels after the first convolution, and its stride.
        first: Channels after the fixed block.
        widths: Channels of every stage.
        blocks: Blocks of every stage.
        strides: Of the first block of every stage.
        head: Channels of the last convolution.
        in_channels: Channels of the input.
        size: Height and width of the input.
        classes: Number of outputs.
        kernels: Sides of the depthwise convolutions.
        expansions: Channels inside a block, as multiples of those before it.
        se: Whether every operation is also on offer with squeeze-and-excitation.
        activations: Those on offer, `relu6` and `hswish`.

    Raises:
        ConfigError: A setting is out of range, or contradicts `config`.
        DataError: `config` cannot be read.
    """

    def __init__(
        self,
        *,
        preset: Literal["imagenet", "cifar", "small"] = "imagenet",
        config: str | Path = "",
        stem: Sequence[int] | None = None,
        first: int | None = None,
        widths: Sequence[int] | None = None,
        blocks: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        head: int | None = None,
        in_channels: int | None = None,
        size: int | None = None,
        classes: int | None = None,
        kernels: Sequence[int] = (3, 5, 7),
        expansions: Sequence[float] = (3, 6),
        se: bool = False,
        activations: Sequence[Named] = ("relu6",),
    ) -> None:
        if preset not in PRESETS:
            raise ConfigError(f"preset is one of {', '.join(PRESETS)}; got {preset!r}")
        if stem is not None and len(stem) != 2:
            raise ConfigError(f"stem is (channels, stride) of the first convolution; got {tuple(stem)}")
        channels, stride = stem or (None, None)
        shape = _given(stem=channels, stem_stride=stride, first=first, head=head)
        shape |= {k: tuple(v) for k, v in _given(widths=widths, blocks=blocks, strides=strides).items()}
        known = list[Operation | None]()
        if str(config):
            if shape:
                raise ConfigError(f"config says what {', '.join(shape)} are; leave them out, or config")
            shape, known = published(config)
            kernels = (*kernels, *(o.kernel for o in known if o))
            expansions = (*expansions, *(o.expansion for o in known if o))
        self.plan = replace(PRESETS[preset], **shape | _given(in_channels=in_channels, size=size, classes=classes))
        self.operations = Menu(kernels, expansions, se, activations).operations()
        self.input_shape = (self.plan.in_channels, self.plan.size, self.plan.size)
        self._fixed, *self._slots = self.plan.slots()
        self._options = tuple((None, *self.operations) if s.optional else self.operations for s in self._slots)
        self.choices = tuple(
            Choice(f"stage{s.stage}.{s.depth}", tuple(SKIP if o is None else str(o) for o in options))
            for s, options in zip(self._slots, self._options, strict=True)
        )
        self._known = known or [self._usual()] * len(self._slots)

    @property
    def reference(self) -> Arch:
        return self.canonical(self._arch(self._known))

    def scaled(self, factor: float) -> Arch:
        operations = [o[a] for o, a in zip(self._options, self.reference, strict=True)]
        shallow = sorted(range(len(self._slots)), key=lambda i: (self._slots[i].depth, self._slots[i].stage))
        free = [i for i in shallow if self._slots[i].optional and operations[i]]
        for i in free[round(factor * len(free)) :]:
            operations[i] = None
        for rank, i in enumerate(shallow):
            if (operation := operations[i]) is not None:
                target, share = factor * operation.expansion, (rank + 0.5) / len(shallow)
                operations[i] = operation._replace(expansion=self._expansion(target, share))
        return self._arch(operations)

    def canonical(self, arch: Arch) -> Arch:
        found = list(arch)
        for places in runs(self._slots):
            found[places.start : places.stop] = sorted((arch[i] for i in places), key=lambda a: a == 0)
        return tuple(found)

    def build(self, arch: Arch) -> nn.Module:
        blocks = [_module(s, o[a]) or nn.Identity() for s, o, a in zip(self._slots, self._options, arch, strict=True)]
        network = Network(self.plan, blocks)
        initialise(network)
        return fx.symbolic_trace(network)  # a graph of torch's own modules only

    def supernet(self) -> Supernet:
        return _MbconvSupernet(self).to(memory_format=torch.channels_last)  # on a CPU 1.4 to 1.8 times as fast

    def mixed(self) -> Iterator[Mixed]:
        """The blocks of a supernet."""
        for slot, options in zip(self._slots, self._options, strict=True):
            yield Mixed([_module(slot, o) for o in options], shortcut=True)

    def account(self, metric: str) -> Tables | None:
        plan, last = self.plan, self.plan.widths[-1]
        if metric == "macs":
            ends = plan.in_channels * plan.stem * 9 * self._fixed.size**2 + last * plan.head * self.plan.last**2
            return self._tables(lambda block, size: block.macs(size), ends + plan.head * plan.classes)
        if metric == "params":
            ends = plan.stem * (plan.in_channels * 9 + 2) + plan.head * (last + 2) + (plan.head + 1) * plan.classes
            return self._tables(lambda block, _: block.params(), ends)
        return None

    def steps(self) -> Sequence[Tables]:
        plan, zeros = self.plan, Tables.zeros(self.choices).unary
        stem = plan.in_channels * plan.size**2 + plan.stem * self._fixed.size**2
        first = self._fixed.block(FIRST).memory(self._fixed.size)
        ends = max(stem, first, (plan.widths[-1] + plan.head) * self.plan.last**2, plan.head + plan.classes)
        blocks = self._tables(lambda block, size: block.memory(size), 0).unary
        alone = [Tables((*zeros[:i], table, *zeros[i + 1 :])) for i, table in enumerate(blocks)]
        return (Tables(zeros, {}, float(ends)), *alone)

    def operator(self, operator: Operator) -> nn.Module:
        module = super().operator(operator)
        initialise(module)
        return module

    @cached_property
    def _operators(self) -> tuple[Operators, Catalogue]:
        return operators(self.plan, self._options)

    def _usual(self) -> Operation:
        return min(self.operations, key=lambda o: (-o.expansion, o.kernel, o.squeeze, self.operations.index(o)))

    def _expansion(self, target: float, share: float) -> float:
        """One of the two expansions around `target`; over all shares from 0 to 1, the mean is `target`."""
        found = sorted({o.expansion for o in self.operations})
        low = max((e for e in found if e <= target), default=found[0])
        high = min((e for e in found if e > low), default=low)
        return high if target - low > share * (high - low) else low

    def _arch(self, operations: Sequence[Operation | None]) -> Arch:
        return tuple(options.index(o) for options, o in zip(self._options, operations, strict=True))

    def _tables(self, value: Callable[[Block, int], int], ends: int) -> Tables:
        """The sum of the values of all blocks, and of what is around them."""
        unary = [
            torch.tensor([0 if o is None else value(s.block(o), s.size) for o in options], dtype=torch.float64)
            for s, options in zip(self._slots, self._options, strict=True)
        ]
        return Tables(tuple(unary), {}, float(ends + value(self._fixed.block(FIRST), self._fixed.size)))


def _given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _module(slot: Slot, operation: Operation | None) -> Residual | None:
    return None if operation is None else Residual(slot.block(operation))


class _MbconvSupernet(Supernet):
    def __init__(self, space: Mbconv) -> None:
        super().__init__()
        self.space = space
        self.network = Network(space.plan, space.mixed())
        initialise(self.network)

    def forward(self, x: Inputs, gates: Sequence[Tensor]) -> Tensor:
        y = trees.single(x, self)
        net = self.network
        fixed, *blocks = net.blocks
        y = fixed(net.first_conv(y))
        for block, gate in zip(blocks, gates, strict=True):
            y = block(y, gate)
        logits: Tensor = net.classifier(net.feature_mix_layer(y))
        return logits

    def extract(self, arch: Arch) -> nn.Module:
        with torch.device("meta"):
            plain = self.space.build(arch)
        return inherit_path(plain, self.network, arch)

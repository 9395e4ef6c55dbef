"""Networks of stages of inverted residual blocks, with one joint choice per stage, and their exact costs.

A stage's kernel, expansion, filters and repeats are one choice: a cost is then a sum of terms of one stage and of two
neighbouring ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, fx, nn

from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Choice
from sartor.core.tables import Tables
from sartor.spaces._inverted import Activation, Block, Menu, Stage, divisible, halved

ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
}


@dataclass(frozen=True)
class Plan:
    """Everything but the choices.

    Attributes:
        stem: Channels after the first convolution.
        last: Channels before the pooling, of those of the last stage.
        hidden: Outputs of a further linear layer before the classifier; 0 for none.
        first: Activation of the first convolution and of the last ones.
        inner: What blocks call their layers.
        bundled: Whether the last convolution of a block and its norm are wrapped together.
        norm: Makes a norm.
    """

    in_channels: int
    classes: int
    size: int
    stem: int
    stages: tuple[Stage, ...]
    last: Callable[[int], int]
    hidden: int
    first: Activation
    inner: Literal["conv", "block"]
    bundled: bool
    norm: Callable[[int], nn.Module]

    def __post_init__(self) -> None:
        if min(self.in_channels, self.classes, self.size) < 1:
            raise ConfigError(
                "classes, size and in_channels must be at least 1; "
                f"got {self.classes}, {self.size} and {self.in_channels}"
            )


class Bottleneck(NamedTuple):
    """A stage of MobileNet-v3 at width 1; see `Stage`."""

    filters: int
    kernel: int
    wide: tuple[int, ...]
    stride: int
    activation: Activation
    squeeze: bool = False


def version_3(
    in_channels: int, classes: int, size: int, width: float, stages: Sequence[Bottleneck], hidden: int
) -> Plan:
    """MobileNet-v3 with these stages, all channels times `width`; `hidden` features before the classifier.

    Raises:
        ConfigError: A number is not positive.
    """
    if width <= 0:
        raise ConfigError(f"width must be positive; got {width}")
    stem = c = divisible(16 * width)
    found = list[Stage]()
    for stage in stages:
        after, wide = divisible(stage.filters * width), tuple(divisible(w * width) for w in stage.wide)
        found.append(Stage(c, after, stage.kernel, wide, stage.stride, stage.activation, stage.squeeze))
        c = after
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)
    return Plan(
        in_channels,
        classes,
        size,
        stem,
        tuple(found),
        lambda channels: 6 * channels,
        divisible(hidden * width),
        "hardswish",
        "block",
        True,
        norm,
    )


class Staged:
    """A plan with its options: choices, networks and tables."""

    def __init__(self, plan: Plan, menu: Menu) -> None:
        self.plan = plan
        self.options = tuple(menu.options(stage) for stage in plan.stages)
        self.choices = tuple(Choice(f"stage{i}", tuple(map(str, o))) for i, o in enumerate(self.options, 1))
        self.reference = tuple(o.index(s.option) for o, s in zip(self.options, plan.stages, strict=True))
        self._sizes = [halved(plan.size, 2)]
        for stage in plan.stages:
            self._sizes.append(halved(self._sizes[-1], stage.stride))

    def build(self, arch: Arch) -> nn.Module:
        """The network of `arch`, as a graph of torch's own modules only."""
        blocks, c = list[Block](), self.plan.stem
        for stage, options, a in zip(self.plan.stages, self.options, arch, strict=True):
            blocks += stage.blocks(c, options[a])
            c = options[a].filters
        network = _Network(self.plan, blocks)
        initialise(network)
        return fx.symbolic_trace(network)

    def account(self, metric: str) -> Tables | None:
        """Tables of `macs` and `params`; None of others."""
        if metric == "macs":
            first, tail = self.plan.in_channels * self.plan.stem * 9 * self._sizes[0] ** 2, self._tail_macs
            return self._sum(lambda block, size: block.macs(size), first, tail)
        if metric == "params":
            first, tail = self.plan.stem * (self.plan.in_channels * 9 + 2), self._tail_params
            return self._sum(lambda block, _: block.params(), first, tail)
        return None

    def steps(self) -> tuple[Tables, ...]:
        """Values alive in the first convolution, in every block and in the last layers."""
        plan = self.plan
        stem = plan.in_channels * plan.size**2 + plan.stem * self._sizes[0] ** 2
        found = [Tables(Tables.zeros(self.choices).unary, {}, float(stem))]
        for i, options in enumerate(self.options):
            found.append(self._first(i, lambda block, size: block.memory(size)))
            for number in range(1, max(o.repeats for o in options)):
                found.append(self._further(i, number, lambda block, size: block.memory(size)))
        return (*found, self._unary(len(self.options) - 1, [self._tail_memory(o.filters) for o in self.options[-1]]))

    def _sum(self, value: Callable[[Block, int], int], first: int, tail: Callable[[int], int]) -> Tables:
        total = Tables(Tables.zeros(self.choices).unary, {}, float(first))
        for i, options in enumerate(self.options):
            total += self._first(i, value)
            for number in range(1, max(o.repeats for o in options)):
                total += self._further(i, number, value)
        return total + self._unary(len(self.options) - 1, [tail(o.filters) for o in self.options[-1]])

    def _first(self, i: int, value: Callable[[Block, int], int]) -> Tables:
        """The value of the first block of a stage, which the filters of the stage before enter."""
        stage, options, size = self.plan.stages[i], self.options[i], self._sizes[i]
        if i == 0:
            return self._unary(0, [value(stage.block(0, self.plan.stem, o), size) for o in options])
        before = [o.filters for o in self.options[i - 1]]
        rows = {c: [value(stage.block(0, c, o), size) for o in options] for c in set(before)}
        grid = torch.tensor([rows[c] for c in before], dtype=torch.float64)
        return Tables(Tables.zeros(self.choices).unary, {(i - 1, i): grid})

    def _further(self, i: int, number: int, value: Callable[[Block, int], int]) -> Tables:
        """The value of a block after the first; 0 where there is none."""
        stage, size = self.plan.stages[i], self._sizes[i + 1]
        values = [value(stage.block(number, o.filters, o), size) if o.repeats > number else 0 for o in self.options[i]]
        return self._unary(i, values)

    def _unary(self, i: int, values: Sequence[int]) -> Tables:
        unary = list(Tables.zeros(self.choices).unary)
        unary[i] = torch.tensor(values, dtype=torch.float64)
        return Tables(tuple(unary))

    def _tail_macs(self, c: int) -> int:
        last, hidden = self.plan.last(c), self.plan.hidden
        linear = last * hidden + hidden * self.plan.classes if hidden else last * self.plan.classes
        return c * last * self._sizes[-1] ** 2 + linear

    def _tail_params(self, c: int) -> int:
        last, hidden, classes = self.plan.last(c), self.plan.hidden, self.plan.classes
        linear = (last + 1) * hidden + (hidden + 1) * classes if hidden else (last + 1) * classes
        return last * (c + 2) + linear

    def _tail_memory(self, c: int) -> int:
        last, hidden, classes = self.plan.last(c), self.plan.hidden, self.plan.classes
        linear = max(last + hidden, hidden + classes) if hidden else last + classes
        return max((c + last) * self._sizes[-1] ** 2, linear)


def _conv(
    c_in: int,
    c_out: int,
    kernel: int,
    norm: Callable[[int], nn.Module],
    activation: Activation | None,
    *,
    stride: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, norm(c_out), *([] if activation is None else [ACTIVATIONS[activation]()]))


class Squeeze(nn.Module):
    """Scales every channel by a number that all channels decide."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.ReLU()
        self.scale_activation = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x)))))
        return x * scale


class _Block(nn.Module):
    def __init__(self, plan: Plan, block: Block) -> None:
        super().__init__()
        self.inner, self.residual = plan.inner, block.residual
        layers = list[nn.Module]()
        if block.wide != block.c_in:
            layers.append(_conv(block.c_in, block.wide, 1, plan.norm, block.activation))
        depthwise = {"stride": block.stride, "groups": block.wide}
        layers.append(_conv(block.wide, block.wide, block.kernel, plan.norm, block.activation, **depthwise))
        if block.squeezed:
            layers.append(Squeeze(block.wide, block.squeezed))
        project = _conv(block.wide, block.c_out, 1, plan.norm, None)
        layers += [project] if plan.bundled else list(project)
        self.add_module(plan.inner, nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.get_submodule(self.inner)(x)
        return x + y if self.residual else y


class _Network(nn.Module):
    def __init__(self, plan: Plan, blocks: Sequence[Block]) -> None:
        super().__init__()
        c, stem = blocks[-1].c_out, _conv(plan.in_channels, plan.stem, 3, plan.norm, plan.first, stride=2)
        last = plan.last(c)
        tail = _conv(c, last, 1, plan.norm, plan.first)
        self.features = nn.Sequential(stem, *(_Block(plan, block) for block in blocks), tail)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        if plan.hidden:
            layers: list[nn.Module] = [nn.Linear(last, plan.hidden), nn.Hardswish(), nn.Dropout(0.2)]
        else:
            layers = [nn.Dropout(0.2)]
        self.classifier = nn.Sequential(*layers, nn.Linear(plan.hidden or last, plan.classes))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return y


def initialise(network: nn.Module) -> None:
    """As the authors of torchvision do it."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

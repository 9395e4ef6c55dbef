"""The matrices of a regression over operators: what each one is made of, or what a table of latencies says of it.

Without a table an operator has the physical terms of its layers (see `sartor.latency.design`), which are seen while it
runs once. With one (Cai et al., "ProxylessNAS", ICLR 2019, call it a latency lookup table) the entries are what the
models start from: times a factor, and with a share of what every operator pays for being timed alone taken off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from sartor.core.abilities import Layered, Operated, require
from sartor.core.contracts import Space
from sartor.core.records import Arch, LayerKey, Operator
from sartor.core.rng import global_seed
from sartor.core.tables import Tables
from sartor.latency.design import BLOCK, Design, Entries, Floats, macs, scaled, terms
from sartor.latency.operator_table import OperatorTable


def design_of(space: Space, by: object, table: OperatorTable | None = None) -> Entries:
    """The entries of a space: its layers if it lists them, else its operators; with a table always its operators.

    Args:
        space: What the entries are of.
        by: Who needs them, for the message.
        table: Latencies of the operators.

    Raises:
        CapabilityError: The space lists neither.
        DataError: The table lacks an operator.
    """
    if isinstance(space, Operated) and (table is not None or not isinstance(space, Layered)):
        return OperatorDesign(space, table)
    return Design(require(space, Layered, by))


class Made(NamedTuple):
    """What is seen of an operator while it runs.

    Attributes:
        layers: Its convolutions and linear layers.
        values: How many numbers enter and leave it.
        shapes: Of its input and output, without the batch.
    """

    layers: tuple[LayerKey, ...]
    values: int
    shapes: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def macs(self) -> float:
        """Multiply-adds for one input."""
        return sum(map(macs, self.layers))


class OperatorDesign(Entries):
    """The table entries of a space of operators.

    Attributes:
        keys: The key of every operator, in order of appearance.
        made: What each is made of, in this order.
    """

    def __init__(self, space: Operated, table: OperatorTable | None = None) -> None:
        operators = space.operators()
        self.choices = tuple(space.choices)
        self.keys: tuple[str, ...] = tuple(operator.key for operator in operators.all())
        self.made = tuple(seen(space, operator) for operator in operators.all())
        self.longest = len(operators.fixed) + sum(max(map(len, options)) for options in operators.options)
        self._fixed = self._counts([operators.fixed])[0]
        self._options = tuple(self._counts(options) for options in operators.options)
        self._known: Floats | None = None
        if table is not None:
            table.tables(space)  # names what is missing
            self._known = np.array([table.entries[key].mean for key in self.keys])

    def _counts(self, options: Sequence[Sequence[Operator]]) -> Floats:
        """How often each option runs each operator, `(options, keys)`."""
        used = [Counter(operator.key for operator in option) for option in options]
        return np.array([[counter[key] for key in self.keys] for counter in used], dtype=np.float64)

    def matrix(self, archs: Sequence[Arch]) -> sparse.csr_array:
        """How often each arch runs each operator, `(archs, keys)`."""
        index = np.array(archs, dtype=np.int64).reshape(len(archs), len(self._options))
        counts = np.tile(self._fixed, (len(archs), 1))
        for i, options in enumerate(self._options):
            counts += options[index[:, i]]
        return sparse.csr_array(counts)

    def tables(self, values: Floats, constant: float = 0.0) -> Tables:
        """The sum over a network's operators of `values`, `(keys,)`, plus `constant`."""
        unary = tuple(torch.from_numpy(options @ values) for options in self._options)
        return Tables(unary, constant=float(self._fixed @ values) + constant)

    def macs(self) -> Floats:
        """Multiply-adds of each operator, `(keys,)`."""
        return np.array([made.macs for made in self.made])

    @cached_property
    def neighbours(self) -> sparse.csr_array:
        """Adjacent: of equal input and output shapes, next to each other in multiply-adds; the smaller one has +1."""
        work = self.macs()
        lines: dict[Any, list[int]] = {}
        for i in np.argsort(work, kind="stable"):
            lines.setdefault(self.made[i].shapes, []).append(int(i))
        pairs = [(a, b) for line in lines.values() for a, b in pairwise(line) if work[a] < work[b]]
        found = np.zeros((len(pairs), len(self.keys)))
        for row, (small, large) in zip(found, pairs, strict=True):
            row[small], row[large] = 1.0, -1.0
        return sparse.csr_array(found)

    def physical(self, block: int = BLOCK) -> Floats:
        """Terms of each operator, `(keys, terms)`: those of its layers, or what the table says."""
        if self._known is not None:
            return scaled([_told(ms, *self._alone, made) for ms, made in zip(self._known, self.made, strict=True)])
        return scaled([_physical(made, block) for made in self.made])

    @cached_property
    def _alone(self) -> tuple[float, float]:
        """Most that being timed alone can cost: milliseconds per operator, and per value that enters or leaves."""
        assert self._known is not None
        return float(self._known.min()), float((self._known / [made.values for made in self.made]).min())

    def correlation(self, length: float, block: int = BLOCK) -> Floats:
        """Squared exponential in log multiply-adds between operators of equal input and output shapes, else zero."""
        del block  # channels do not differ between operators of equal shapes
        classes: dict[Any, int] = {}
        label = np.array([classes.setdefault(made.shapes, len(classes)) for made in self.made])
        work = np.log1p(self.macs())
        found = np.exp(-((work[:, None] - work[None]) ** 2) / length**2 / 2)
        return np.asarray(np.where(label[:, None] == label[None], found, 0.0))


def _told(ms: float, each: float, value: float, made: Made) -> dict[str, float]:
    """What a table's entry stands for, as terms whose factors are never negative, nor are the entries they make.

    An operator that is timed alone pays for the call, and for bringing its input and output into the layout that its
    kernels want: a network pays that once, so the entries less these may be the better predictor. The last two terms
    admit the opposite.
    """
    return {
        "table": ms,
        "table less calls": ms - each,
        "table less values": ms - value * made.values,
        "operators": 1.0,
        "values": made.values,
    }


def _physical(made: Made, block: int) -> dict[str, float]:
    """The terms of all layers, and of the operator itself: activations, pooling and sums are no layers."""
    found: Counter[str] = Counter()
    for layer in made.layers:
        for name, value in terms(layer, block).items():
            found[name] += value  # type: ignore[assignment]  # a counter of floats adds up as well
    return {**found, "operators": 1.0, "values": float(made.values)}


def seen(space: Operated, operator: Operator) -> Made:
    """Run a freshly built operator on one input, without values where it can do without, and watch its layers."""
    with global_seed(0):  # building draws weights; nobody's randomness may feel it
        try:
            with torch.device("meta"):
                return _watched(space.operator(operator).eval(), operator)
        except (NotImplementedError, RuntimeError):  # it needs real tensors
            return _watched(space.operator(operator).eval(), operator)


def _watched(module: nn.Module, operator: Operator) -> Made:
    layers: list[LayerKey] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        layers.append(_key(layer, inputs[0], output))

    hooks = [m.register_forward_hook(note) for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        after = tuple(module(torch.zeros(1, *operator.input_shape)).shape[1:])
    for hook in hooks:
        hook.remove()
    values = prod(operator.input_shape) + prod(after)
    return Made(tuple(layers), values, (operator.input_shape, after))


def _key(layer: nn.Module, before: Tensor, after: Tensor) -> LayerKey:
    """The table key of a layer as it ran; of a grouped convolution, that of a plain one with as many multiply-adds."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return LayerKey("linear", (1, 1), 1, 1, bias, layer.in_features, layer.out_features)
    assert isinstance(layer, nn.Conv2d)
    (height, width), (down, across) = layer.kernel_size, after.shape[2:]
    kernel = height if height == width else (height, width)
    depthwise = layer.groups == layer.in_channels > 1
    return LayerKey(
        "depthwise" if depthwise else "conv",
        (before.shape[2], before.shape[3]),
        kernel,
        int(layer.stride[0]),
        bias,
        layer.in_channels if depthwise else layer.in_channels // layer.groups,
        layer.out_channels,
        (int(down), int(across)),
    )


__all__ = ["Made", "OperatorDesign", "design_of", "seen"]

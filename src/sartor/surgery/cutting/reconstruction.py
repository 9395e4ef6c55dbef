"""Each layer of a cut network fitted to what the original's layer gives, from some examples and without training.

The original and the cut network run side by side through the graph. At each convolution and linear layer the cut
network's weights are replaced by those that come nearest to the original's outputs, in the channels that are left, on
the inputs that the cut network really has there: so a layer also makes up for what earlier ones have lost.

Source: He, Zhang and Sun, "Channel pruning for accelerating very deep neural networks" (ICCV 2017), equations 2 and 4.
Deviations: all layers in one pass; a ridge towards the cut weights; batch norms get new statistics on the way.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, fx

from sartor.cholesky import factored
from sartor.core import trees
from sartor.core.errors import SingularError
from sartor.core.trees import Inputs, Tree
from sartor.surgery.analysis.tracker import argument, operator_name
from sartor.surgery.cutting.layers import bias_is_free, is_layer, places, rows
from sartor.surgery.cutting.slicing import Cut, Engine, Pass
from sartor.training.evaluation import mode

RIDGE = 1e-2
"""Pull towards the cut weights, relative to the mean square of what enters the layer."""
ENTRIES = 2**21
"""Numbers of one layer's inputs that are looked at: more equations than that change little."""
LEAST = 8
"""At least so many equations for every unknown, if the examples have them."""
VALUES = 2**14
"""Of each channel so many are enough for its mean and variance."""
_SMALL = 1e-6
"""Least variance, and least share of it that is left."""


class Fitted(NamedTuple):
    """What came of it.

    Attributes:
        weights: New values for weights of the cut network, by name; all others stay as they were cut.
        wanted: What the original gives for the examples.
        given: What the cut network gives for them with the new values.
    """

    weights: dict[str, Tensor]
    wanted: Tree
    given: Tree


@torch.no_grad()
def reconstruct(engine: Engine, cut: Cut, inputs: Inputs) -> Fitted:
    """New values for weights of the cut network.

    Layers whose weight is used twice, or computed, stay; so do transposed convolutions.

    Args:
        engine: Of the original.
        cut: What is left of it, for batches of as many as `inputs`.
        inputs: Examples, each `(batch, ...)`: a few hundred images.
    """
    with mode(engine.network, training=False):
        return _Pair(engine, cut, inputs).run()


class _Rows(NamedTuple):
    """Inputs and wanted outputs of a layer, `(groups, rows, inputs)` and `(groups, rows, outputs)`."""

    inputs: Tensor
    wanted: Tensor


class _Pair:
    """The original and the cut network, node by node."""

    def __init__(self, engine: Engine, cut: Cut, inputs: Inputs) -> None:
        self.engine, self.skeleton = engine, engine.skeleton
        everything = np.ones(len(self.skeleton.units) + 1, dtype=bool)
        self.whole = Pass(engine, Cut(self.skeleton, everything, trees.size(inputs)), inputs, None)
        self.small = Pass(engine, cut, trees.mapped(torch.clone, inputs), None)
        self.found: dict[fx.Node, Tensor] = {}
        self.generator = torch.Generator().manual_seed(0)

    def run(self) -> Fitted:
        for node in self.skeleton.calls:
            self.whole.step(node)
            if node not in self.small.cut.skipped and node not in self.small.cut.shortcuts:
                if is_layer(self.skeleton, node):
                    self._fit(node)
                elif node in self.engine.norms:
                    self._recalibrate(node)
            self.small.step(node)
            self.whole.forget(node)
            self.small.forget(node)
        weights = {self.skeleton.weights[node.name]: value for node, value in self.found.items()}
        return Fitted(weights, self.whole.output(), self.small.output())

    def _replace(self, node: fx.Node, value: Tensor) -> None:
        """A new value for a weight of the cut network, from here on."""
        self.found[node] = self.small.values[node] = value

    def _fit(self, node: fx.Node) -> None:
        """Ridge regression of the wanted outputs on the inputs, around the cut weights."""
        bias = argument(node, 2, "bias", None)
        old = self.small.value(argument(node, 1, "weight", None))
        seen = self._rows(node, old)
        groups, outputs = seen.inputs.shape[0], seen.wanted.shape[2]
        start = old.reshape(groups, outputs, -1).mT
        free = bias_is_free(self.engine, node)
        means = [t.mean(1, keepdim=True) if free else torch.zeros_like(t[:, :1]) for t in seen]
        inputs, wanted = seen.inputs - means[0], seen.wanted - means[1]
        change = _ridge(inputs, wanted - inputs @ start)
        new = start if change is None else start + change.to(start)
        if change is None or not new.isfinite().all():
            return
        self._replace(argument(node, 1, "weight", None), new.mT.reshape(old.shape).contiguous())
        if bias is not None:
            self._replace(bias, (means[1] - means[0] @ new).reshape(-1))

    def _rows(self, node: fx.Node, weight: Tensor) -> _Rows:
        x, y = self.small.value(node.args[0]), self.whole.value(node)  # type: ignore[arg-type]
        at = -1 if operator_name(node) == "linear" else 1
        kept = self._kept(node, at)
        if kept is not None:
            y = y.index_select(at, kept)
        pick = self._pick(places(node, x, y), x.shape[at] * math.prod(weight.shape[2:])).to(x.device)
        return _Rows(*rows(node, x, y, weight, pick))

    def _kept(self, node: fx.Node, dim: int) -> Tensor | None:
        """Which indices of the original's output are left; None if all are."""
        mask = self.small.cut.mask(self.skeleton.tracker.dims(node)[dim])
        return None if mask is None else torch.from_numpy(mask.nonzero()[0]).to(self.small.device)

    def _pick(self, rows: int, unknowns: int) -> Tensor:
        most = max(LEAST * unknowns, ENTRIES // unknowns)
        return torch.randperm(rows, generator=self.generator)[:most]

    def _recalibrate(self, node: fx.Node) -> None:
        """Statistics of a batch norm change as much as what enters it has changed."""
        x, mean, var = node.args[0], node.args[3], node.args[4]
        assert isinstance(x, fx.Node)
        assert isinstance(mean, fx.Node)
        assert isinstance(var, fx.Node)
        kept = self._kept(node, 1)
        before = [t if kept is None else t[kept] for t in _moments(self.whole.value(x))]
        after = _moments(self.small.value(x))
        self._replace(mean, self.small.value(mean) + after[1] - before[1])
        self._replace(var, self.small.value(var) * (after[0] / before[0].clamp(min=_SMALL)).clamp(min=_SMALL))


def _ridge(inputs: Tensor, wanted: Tensor) -> Tensor | None:
    """`(groups, inputs, outputs)`, float64, that come nearest to `wanted` for `inputs`, and are no larger than need be.

    Inputs are brought to a mean square of 1 first: products of very small or large ones would be lost in float32.

    Returns:
        None where the numbers are not finite.
    """
    sizes = inputs.double().square().mean((1, 2), keepdim=True).sqrt()
    sizes = torch.where(sizes > 0, sizes, 1.0)
    inputs = inputs / sizes.to(inputs)
    square = (inputs.mT @ inputs).double() / inputs.shape[1]
    rest = (inputs.mT @ wanted).double() / inputs.shape[1]
    square = square + RIDGE * torch.eye(square.shape[-1], dtype=square.dtype, device=square.device)
    try:
        lower, _ = factored(square)
    except SingularError:
        return None
    return torch.cholesky_solve(rest, lower) / sizes


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and mean of each channel, over the first examples where there are many places."""
    x = x[: max(1, math.ceil(VALUES / max(1, math.prod(x.shape[2:]))))]
    return torch.var_mean(x, [d for d in range(x.dim()) if d != 1], correction=0)

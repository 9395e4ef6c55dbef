"""The layers that read channels, as backward elimination sees them: what enters, the weights, and what an error costs.

A channel is worth what its readers lose without it. For each convolution and linear layer this gathers rows of what it
reads from a few examples, and how strongly the network's outputs answer to an error in each of its outputs: the mean
squared gradient, which for a likelihood is the diagonal of the Fisher matrix. Source: Theis, Korshunova, Tejani and
Huszar, "Faster gaze prediction with dense networks and Fisher pruning" (arXiv:1801.05787); Hassibi and Stork, "Optimal
brain surgeon" (NIPS 1992) for the quadratic model around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, fx

from sartor.core import trees
from sartor.core.rng import derive
from sartor.core.trees import Inputs, Tree
from sartor.surgery.analysis.tracker import argument, operator_name
from sartor.surgery.analysis.units import Dim
from sartor.surgery.cutting.layers import bias_is_free, is_layer, places, rows
from sartor.surgery.cutting.slicing import Cut, Engine, Pass
from sartor.training.evaluation import mode

ENTRIES = 2**21
"""Most numbers of one layer's inputs that are kept, which bounds memory."""
EQUATIONS = 4
"""Rows for every unknown, if the examples have them."""
CHUNK = 2**18
"""Input numbers of the examples that pass the network at once: what they leave behind is needed for the gradients."""

Pull = Callable[[Tree, torch.Generator], Tensor]
"""The outputs of some examples -> one number, whose gradient says what the outputs answer to."""


@dataclass
class Reader:
    """A layer that mixes channels.

    Attributes:
        reads: Labels of the channels that it reads.
        writes: Labels of those that it makes.
        groups: How many parts the channels are mixed in.
        taps: Places of one channel that it reads at once.
        weight: `(groups, outputs, inputs)`, the inputs channel by channel, each with its taps.
        free: Whether a constant is free: there is a bias, or a norm behind it that subtracts the mean.
        rows: What enters, `(groups, rows, inputs)` each.
        slopes: Sum over examples and places of the squared gradient of every output, `(groups * outputs,)`.
    """

    reads: Dim
    writes: Dim
    groups: int
    taps: int
    weight: Tensor
    free: bool
    rows: list[Tensor] = field(default_factory=list)
    slopes: Tensor = field(default_factory=lambda: torch.zeros(()))


def sampled_labels(output: Tree, generator: torch.Generator) -> Tensor:
    """The log-likelihood of labels drawn from the network's own distribution; `(batch, classes, ...)` logits."""
    logits = output.movedim(1, -1).flatten(0, -2).double()
    with torch.no_grad():
        drawn = torch.multinomial(logits.softmax(1).cpu(), 1, generator=generator)[:, 0].to(logits.device)
    return torch.nn.functional.cross_entropy(logits, drawn, reduction="sum")


def projected(output: Tree, generator: torch.Generator) -> Tensor:
    """A random projection of all outputs, each brought to a spread of 1: its squared gradient is their error's."""
    total = torch.zeros((), dtype=torch.float64)
    for leaf in trees.leaves(output):
        if leaf.is_floating_point():
            scale = float(leaf.detach().double().std(correction=0)) or 1.0
            noise = torch.randn(leaf.shape, generator=generator).to(leaf) / (scale * math.sqrt(leaf[:1].numel()))
            total = total.to(leaf.device) + (leaf * noise).sum()
    return total


def readers(engine: Engine, inputs: Inputs, pull: Pull, *, seed: int = 0) -> list[Reader]:
    """All layers that mix channels, in order of execution.

    Args:
        engine: Of the whole network.
        inputs: Examples, each `(batch, ...)`.
        pull: What the gradients are of.
        seed: Of what is drawn.
    """
    found: dict[fx.Node, Reader] = {}
    generator = torch.Generator().manual_seed(derive(seed, "readers") % 2**63)
    size, numbers = trees.size(inputs), sum(x[:1].numel() for x in trees.leaves(inputs))
    step = max(2, min(64, CHUNK // max(1, numbers)))
    parts = [slice(at, at + step) for at in range(0, size, step)]
    with mode(engine.network, training=False):
        for part in parts:
            _add(engine, trees.rows(inputs, part), pull, generator, found, share=1 / len(parts))
    return [r for r in found.values() if r.rows and r.slopes.dim()]


def _add(
    engine: Engine,
    inputs: Inputs,
    pull: Pull,
    generator: torch.Generator,
    found: dict[fx.Node, Reader],
    *,
    share: float,
) -> None:
    """One chunk of examples: forward with a probe behind every layer, and back to the probes."""
    skeleton = engine.skeleton
    everything = np.ones(len(skeleton.units) + 1, dtype=bool)
    run = Pass(engine, Cut(skeleton, everything, trees.size(inputs)), inputs, None)
    probes: dict[fx.Node, Tensor] = {}

    def watch(node: fx.Node) -> None:
        if is_layer(skeleton, node):
            value = run.values[node]
            probe = torch.zeros_like(value, requires_grad=True)
            _see(engine, run, node, found, generator, share)
            run.values[node] = value + probe
            probes[node] = probe

    with torch.enable_grad():
        output = run.run(watch)
        goal = pull(output, generator)
        if not probes or not goal.requires_grad:  # outputs that nothing differentiable leads to
            return
        slopes = torch.autograd.grad(goal, list(probes.values()), allow_unused=True)
    for node, slope in zip(probes, slopes, strict=True):
        if slope is not None:
            at = slope.dim() - 1 if operator_name(node) == "linear" else 1
            others = [d for d in range(slope.dim()) if d != at]
            found[node].slopes = found[node].slopes + slope.double().square().sum(others).cpu()


@torch.no_grad()
def _see(
    engine: Engine, run: Pass, node: fx.Node, found: dict[fx.Node, Reader], generator: torch.Generator, share: float
) -> None:
    """Keep some rows of what enters the layer."""
    x, y = run.value(node.args[0]), run.values[node]  # type: ignore[arg-type]
    weight = run.value(argument(node, 1, "weight", None)).detach()
    linear = operator_name(node) == "linear"
    tracker = engine.skeleton.tracker
    if node not in found:
        groups = 1 if linear else x.shape[1] // weight.shape[1]
        at = -1 if linear else 1
        found[node] = Reader(
            reads=tracker.dims(node.args[0])[at],  # type: ignore[arg-type]
            writes=tracker.dims(node)[at],
            groups=groups,
            taps=1 if linear else math.prod(weight.shape[2:]),
            weight=weight.reshape(groups, weight.shape[0] // groups, -1).double().cpu(),
            free=bias_is_free(engine, node),
        )
    unknowns = found[node].weight.shape[2]
    wanted = max(1, math.ceil(share * min(EQUATIONS * unknowns, max(1, ENTRIES // (unknowns * found[node].groups)))))
    pick = torch.randperm(places(node, x, y), generator=generator)[:wanted].to(x.device)
    found[node].rows.append(rows(node, x, y, weight, pick)[0].float().cpu())

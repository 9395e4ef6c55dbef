"""A cell as a graph: every node is the sum of one operation on each node before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn, zeros_like


def edges_of(inputs: int, nodes: int) -> tuple[tuple[int, int], ...]:
    """Node before, node after; inputs are numbered first, then nodes."""
    return tuple((source, node) for node in range(inputs, inputs + nodes) for source in range(node))


def sums(
    inputs: Sequence[Tensor],
    edges: Sequence[tuple[int, int]],
    run: Callable[[int, Tensor], Tensor | None],
    stride: int = 1,
) -> list[Tensor]:
    """What the nodes after the inputs are.

    Args:
        inputs: `(batch, channels, height, width)` each.
        edges: In the order in which they run; every node after the inputs ends one at least.
        run: The result of an edge, by its number, on a value; None adds nothing.
        stride: Between the inputs and the nodes.

    Returns:
        One value per node; zeros where nothing was added.
    """

    def nothing() -> Tensor:
        return zeros_like(inputs[0][:, :, ::stride, ::stride] if stride > 1 else inputs[0])

    found: list[Tensor | None] = [*inputs, *[None] * (edges[-1][1] + 1 - len(inputs))]
    for e, (source, node) in enumerate(edges):
        before, total = found[source], found[node]
        term = run(e, nothing() if before is None else before)
        if term is not None:
            found[node] = term if total is None else total + term
    return [nothing() if value is None else value for value in found[len(inputs) :]]


class Cell(nn.Module):
    """Inputs, each through a module of its own, then nodes; the last one is the output, or all of them, concatenated.

    Args:
        layers: Per edge what it runs, None if nothing: an operation, or a `Mixed` of several, which then needs gates.
        before: Per input a module; empty takes the one input as it is.
        inputs: How many.
        stride: Of the edges that start at inputs.
        concat: Whether all nodes are the output, by channels.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module | None],
        *,
        before: Sequence[nn.Module] = (),
        inputs: int = 1,
        stride: int = 1,
        concat: bool = False,
    ) -> None:
        super().__init__()
        nodes = next(n for n in range(1, len(layers) + 1) if len(edges_of(inputs, n)) == len(layers))
        self.edges, self.stride, self.concat = edges_of(inputs, nodes), stride, concat
        self.before = nn.ModuleList(before)
        self.layers = nn.ModuleDict({str(e): layer for e, layer in enumerate(layers) if layer is not None})

    def forward(self, *xs: Tensor, gates: Sequence[Tensor] | None = None) -> Tensor:
        """Run; with gates per edge, `(k,)` or `(batch, k)`, if the layers are `Mixed`."""

        def run(e: int, x: Tensor) -> Tensor | None:
            if str(e) not in self.layers:
                return None
            layer, further = self.layers[str(e)], () if gates is None else (gates[e],)
            return layer(x, *further)  # type: ignore[no-any-return]

        inputs = [m(x) for m, x in zip(self.before, xs, strict=True)] if len(self.before) else list(xs)
        nodes = sums(inputs, self.edges, run, self.stride)
        return torch.cat(nodes, 1) if self.concat else nodes[-1]


class Nothing(nn.Module):
    """Zeros, where a stride makes them smaller than what they are made from."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return zeros_like(x[:, :, :: self.stride, :: self.stride])

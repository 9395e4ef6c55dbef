"""Costs that are sums of per-choice and pairwise terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sartor.core.records import Arch, Choice, Layer, LayerKey


@dataclass(frozen=True)
class Tables:
    """A function of an arch that is a sum of per-choice and pairwise terms.

    Attributes:
        unary: One float64 tensor of shape `(k_i,)` per choice.
        pairwise: `(i, j) -> (k_i, k_j)` float64 tensors, `i < j`; empty if purely additive.
        constant: What no choice changes.
    """

    unary: tuple[Tensor, ...]
    pairwise: Mapping[tuple[int, int], Tensor] = field(default_factory=dict)
    constant: float = 0.0

    @classmethod
    def zeros(cls, choices: Sequence[Choice]) -> Tables:
        """The tables that are zero everywhere."""
        return cls(tuple(torch.zeros(len(c.options), dtype=torch.float64) for c in choices))

    @classmethod
    def of_layers(
        cls, choices: Sequence[Choice], layers: Sequence[Layer], value: Callable[[LayerKey], float]
    ) -> Tables:
        """Sum over `layers` of `value(key)`, where the key depends on at most two choices per layer."""
        unary = [torch.zeros(len(c.options), dtype=torch.float64) for c in choices]
        pairwise: dict[tuple[int, int], Tensor] = {}
        constant = 0.0
        for layer in layers:
            i, j = layer.c_in.choice, layer.c_out.choice
            if i is not None and i == j:
                pairs = zip(layer.c_in.sizes, layer.c_out.sizes, strict=True)
                unary[i] += torch.tensor([value(layer.sized(a, b)) for a, b in pairs], dtype=torch.float64)
                continue
            grid = torch.tensor(
                [[value(layer.sized(a, b)) for b in layer.c_out.sizes] for a in layer.c_in.sizes], dtype=torch.float64
            )
            if i is None and j is None:
                constant += float(grid)
            elif i is None or j is None:
                unary[j if i is None else i] += grid.flatten()  # type: ignore[index]
            else:
                key, grid = ((i, j), grid) if i < j else ((j, i), grid.T)
                pairwise[key] = pairwise[key] + grid if key in pairwise else grid
        return cls(tuple(unary), pairwise, constant)

    def __call__(self, archs: Sequence[Arch]) -> Tensor:
        """Values of `n` archs, shape `(n,)`, float64."""
        index = torch.tensor([list(a) for a in archs], dtype=torch.long).reshape(len(archs), len(self.unary))
        total = torch.full((len(archs),), self.constant, dtype=torch.float64)
        for i, table in enumerate(self.unary):
            total = total + table[index[:, i]]
        for (i, j), table in self.pairwise.items():
            total = total + table[index[:, i], index[:, j]]
        return total

    def cost(self, arch: Arch) -> float:
        """The value of one arch."""
        return float(self([arch])[0])

    def expected(self, probs: Sequence[Tensor]) -> Tensor:
        """Differentiable expectation under independent choices; `probs[i]` has shape `(k_i,)`."""
        total = torch.stack([u.to(p) @ p for u, p in zip(self.unary, probs, strict=True)]).sum() + self.constant
        for (i, j), table in self.pairwise.items():
            total = total + probs[i] @ table.to(probs[i]) @ probs[j]
        return total

    def __add__(self, other: Tables) -> Tables:
        pairwise = dict(self.pairwise)
        for key, table in other.pairwise.items():
            pairwise[key] = pairwise[key] + table if key in pairwise else table
        unary = tuple(a + b for a, b in zip(self.unary, other.unary, strict=True))
        return Tables(unary, pairwise, self.constant + other.constant)

    def __mul__(self, factor: float) -> Tables:
        unary = tuple(u * factor for u in self.unary)
        return Tables(unary, {k: t * factor for k, t in self.pairwise.items()}, self.constant * factor)

    __rmul__ = __mul__

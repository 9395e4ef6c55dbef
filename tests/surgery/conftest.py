"""One check for every operator: a network with some channels computes what the whole one does without the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sartor.core import trees
from sartor.core.rng import global_seed
from sartor.core.trees import Inputs, Tree
from sartor.surgery.analysis.coupling import Coupling, couple
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.cutting.extraction import as_graph
from sartor.surgery.cutting.slicing import Engine, Kept


class Function(nn.Module):
    """Layers by name, and what is done with them."""

    def __init__(self, forward: Callable[..., Tensor], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def _random(network: nn.Module) -> None:
    with torch.no_grad():
        for value in (*network.parameters(), *network.buffers()):
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.5 if value.dim() < 2 else torch.randn_like(value))


def subset(coupling: Coupling, rng: np.random.Generator) -> Kept:
    """Some units of every family, anywhere, not all."""
    kept = np.ones(len(coupling.tracker.units) + 1, dtype=bool)
    for group in coupling.groups:
        for family in group.families:
            gone = rng.permutation(family)[: rng.integers(1, max(2, len(family)))]
            kept[gone] = len(family) == 1
    return kept


def zeroed(coupling: Coupling, network: nn.Module, kept: Kept, x: Inputs) -> Tree:
    """What the network itself gives with zeros in its weights wherever a channel is cut."""
    state = dict(network.named_parameters()) | dict(network.named_buffers())
    before = {name: value.detach().clone() for name, value in state.items()}
    for name, dims in coupling.weights():
        for d, dim in enumerate(dims):
            roots = coupling.tracker.units.resolve(dim)
            if roots is not None and name in state and state[name].is_floating_point():
                state[name].data.index_fill_(d, torch.from_numpy(np.flatnonzero(~kept[roots].all(1))), 0)
    out = trees.mapped(torch.clone, trees.call(network, x))
    for name, value in before.items():
        state[name].data.copy_(value)
    return out


def check(
    network: nn.Module,
    shape: Sequence[int],
    *,
    statistics: bool = False,
    groups: Sequence[int] | None = None,
    least: int = 1,
) -> Coupling:
    """Sliced, extracted and zeroed networks agree for random subsets of the channels, with another batch than traced.

    Args:
        network: Any.
        shape: Of one input, without the batch.
        statistics: Whether something is averaged over channels that are cut: then the masked network is the measure.
        groups: The expected numbers of units of the groups.
        least: So many groups there must be.
    """
    with global_seed(0), torch.no_grad():
        network = network.double().eval()
        _random(network)
        coupling = couple(network, torch.zeros(1, *shape, dtype=torch.float64))
        sizes = sorted(group.size for group in coupling.groups)
        assert len(sizes) >= least
        assert groups is None or sizes == sorted(groups)
        engine = Engine(Skeleton(coupling), network)
        everything = np.ones(len(coupling.tracker.units) + 1, dtype=bool)
        rng = np.random.default_rng(0)
        x = torch.randn(3, *shape, dtype=torch.float64)
        whole = network(x)
        assert (whole[0] - whole[1]).abs().max() > 1e-6 * whole.abs().max()
        for _ in range(4):
            kept = subset(coupling, rng)
            sliced = engine(x, kept)
            masked = engine(x, everything, torch.from_numpy(kept).to(x)[None])
            small = as_graph(engine, engine.cut(kept, 2))
            wanted = masked if statistics else zeroed(coupling, network, kept, x)
            assert (
                sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in network.parameters()) or not sizes
            )
            for found in (sliced, masked, small(x)):
                torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))
            assert not sizes or not torch.allclose(sliced, whole, rtol=1e-6)
    return coupling


@pytest.fixture(name="check")
def _check() -> Callable[..., Coupling]:
    return check


@pytest.fixture(name="zeroed")
def _zeroed() -> Callable[..., Tree]:
    return zeroed


@pytest.fixture(name="net")
def _net() -> type[Function]:
    return Function

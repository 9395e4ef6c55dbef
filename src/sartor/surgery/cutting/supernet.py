"""A trained network as the supernet of all that can be cut out of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from sartor.core import trees
from sartor.core.contracts import Supernet
from sartor.core.records import Arch
from sartor.core.trees import Inputs, Tree
from sartor.supernet.gates import cut
from sartor.surgery.analysis.accounting import Ladder
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.analysis.trace import BATCH
from sartor.surgery.cutting.extraction import as_graph, as_module
from sartor.surgery.cutting.reconstruction import reconstruct
from sartor.surgery.cutting.slicing import Cut, Engine, Kept
from sartor.training.evaluation import mode

Fits: TypeAlias = "Callable[[CutSupernet, Arch, nn.Module], bool]"


class CutSupernet(Supernet):
    """Runs any arch on the weights of one network.

    Args:
        skeleton: Of the network.
        network: Holds the weights; it is trained in place.
        ladders: The choices.
        plain: Whether `extract` gives a module of the network's own class, not a graph.
        fits: Whether such a module computes what this supernet computes for the arch; where not, a graph does.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        network: nn.Module,
        ladders: Sequence[Ladder],
        *,
        plain: bool,
        fits: Fits | None = None,
    ) -> None:
        super().__init__()
        self.network, self.plain, self._fits = network, plain, fits
        self.engine, self.ladders = Engine(skeleton, network), tuple(ladders)

    def forward(self, x: Inputs, gates: Sequence[Tensor]) -> Tree:
        kept, masks = self._everything(), dict[int, list[tuple[np.ndarray, Tensor]]]()
        for i, (gate, ladder) in enumerate(zip(gates, self.ladders, strict=True)):
            for f, family in enumerate(ladder.families):
                here = cut(gate, ladder.kept[:, f].tolist())
                kept[family[here.width :]] = False
                if here.mask is not None:
                    masks.setdefault(i, []).append((family[: here.width], here.mask))
        return self.engine(x, kept, self._table(x, len(kept), masks))

    def extract(self, arch: Arch) -> nn.Module:
        made = self.of_its_class(arch)
        return self.graph(arch) if made is None else made

    def of_its_class(self, arch: Arch, *, borrowed: bool = False) -> nn.Module | None:
        """The cut as a network of the original's class; None where that computes something else.

        Args:
            arch: Which.
            borrowed: Whether it may share parameters with this network: for what is only looked at.
        """
        part = self.part(arch)
        if not self.plain or part.shortcuts:
            return None
        if self._fits is None:
            return as_module(self.engine, part, borrowed=borrowed)
        try:
            made = as_module(self.engine, part, borrowed=borrowed)
        except Exception:  # noqa: BLE001 - the network's own code, with numbers it was not written for
            return None
        return made if self._fits(self, arch, made) else None

    def graph(self, arch: Arch) -> nn.Module:
        """The cut as a graph with the original's layers."""
        return as_graph(self.engine, self.part(arch))

    @torch.no_grad()
    def reconstruct(self, arch: Arch, module: nn.Module, inputs: Inputs) -> bool:
        """Fit the weights of `module`, which was extracted for `arch`, to what this network computes for `inputs`.

        Returns:
            Whether its outputs come nearer to this network's; if not, its weights stay as they are.
        """
        state = dict(module.named_parameters()) | dict(module.named_buffers())
        found = reconstruct(self.engine, self.part(arch, trees.size(inputs)), inputs)
        with mode(module, training=False):
            before = trees.call(module, inputs)
        nearer = _distance(found.given, found.wanted) < _distance(before, found.wanted)
        for name, value in (found.weights if nearer else {}).items():
            state[name].copy_(value)
        return nearer

    def part(self, arch: Arch, examples: int = BATCH) -> Cut:
        """The cut of an arch."""
        return self.engine.cut(self.kept(arch), examples)

    def kept(self, arch: Arch) -> Kept:
        """Which units stay in an arch, `(units + 1,)`."""
        kept = self._everything()
        for ladder, option in zip(self.ladders, arch, strict=True):
            for family, count in zip(ladder.families, ladder.kept[option], strict=True):
                kept[family[count:]] = False
        return kept

    def _everything(self) -> Kept:
        return np.ones(len(self.engine.skeleton.units) + 1, dtype=bool)

    def _table(self, x: Inputs, units: int, masks: dict[int, list[tuple[np.ndarray, Tensor]]]) -> Tensor | None:
        if not masks:
            return None
        rows = max(len(mask) for parts in masks.values() for _, mask in parts)
        at = self._like(x)
        table = torch.ones(rows, units, device=at.device, dtype=at.dtype)
        for parts in masks.values():
            for family, mask in parts:
                index = torch.from_numpy(family).to(at.device)
                table = table.index_copy(1, index, mask.to(table).expand(rows, -1))
        return table

    def _like(self, x: Inputs) -> Tensor:
        """A tensor of the type that is computed in: inputs may be whole numbers."""
        return next(t for t in (*trees.leaves(x), *self.network.parameters()) if t.is_floating_point())


def _distance(found: Tree, wanted: Tree) -> float:
    """Sum of squared differences; infinite if one is not a number."""
    pairs = zip(trees.leaves(found), trees.leaves(wanted), strict=True)
    miss = sum(float((one - two).square().sum()) for one, two in pairs if one.is_floating_point())
    return miss if math.isfinite(miss) else math.inf

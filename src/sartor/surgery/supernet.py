"""A trained network as the supernet of all that can be cut out of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sartor.core.contracts import Supernet
from sartor.core.records import Arch
from sartor.supernet.gates import cut
from sartor.surgery.accounting import Ladder
from sartor.surgery.extraction import as_graph, as_module
from sartor.surgery.slicing import Cut, Engine, Kept, Skeleton
from sartor.surgery.trace import BATCH


class CutSupernet(Supernet):
    """Runs any arch on the weights of one network.

    Args:
        skeleton: Of the network.
        network: Holds the weights; it is trained in place.
        ladders: The choices.
        plain: Whether `extract` gives a module of the network's own class, not a graph.
    """

    def __init__(self, skeleton: Skeleton, network: nn.Module, ladders: Sequence[Ladder], *, plain: bool) -> None:
        super().__init__()
        self.network, self.plain = network, plain
        self._engine, self.ladders = Engine(skeleton, network), tuple(ladders)

    def forward(self, x: Tensor, gates: Sequence[Tensor]) -> Tensor:
        kept, masks = self._everything(), dict[int, list[tuple[np.ndarray, Tensor]]]()
        for i, (gate, ladder) in enumerate(zip(gates, self.ladders, strict=True)):
            for f, family in enumerate(ladder.families):
                here = cut(gate, ladder.kept[:, f].tolist())
                kept[family[here.width :]] = False
                if here.mask is not None:
                    masks.setdefault(i, []).append((family[: here.width], here.mask))
        result: Tensor = self._engine(x, kept, self._table(x, len(kept), masks))
        return result

    def extract(self, arch: Arch) -> nn.Module:
        part = self.part(arch)
        return as_module(self._engine, part) if self.plain and not part.shortcuts else as_graph(self._engine, part)

    def part(self, arch: Arch, examples: int = BATCH) -> Cut:
        """The cut of an arch."""
        return self._engine.cut(self.kept(arch), examples)

    def kept(self, arch: Arch) -> Kept:
        """Which units stay in an arch, `(units + 1,)`."""
        kept = self._everything()
        for ladder, option in zip(self.ladders, arch, strict=True):
            for family, count in zip(ladder.families, ladder.kept[option], strict=True):
                kept[family[count:]] = False
        return kept

    def _everything(self) -> Kept:
        return np.ones(len(self._engine.skeleton.units) + 1, dtype=bool)

    def _table(self, x: Tensor, units: int, masks: dict[int, list[tuple[np.ndarray, Tensor]]]) -> Tensor | None:
        if not masks:
            return None
        rows = max(len(mask) for parts in masks.values() for _, mask in parts)
        table = torch.ones(rows, units, device=x.device, dtype=x.dtype)
        for parts in masks.values():
            for family, mask in parts:
                index = torch.from_numpy(family).to(x.device)
                table = table.index_copy(1, index, mask.to(table).expand(rows, -1))
        return table

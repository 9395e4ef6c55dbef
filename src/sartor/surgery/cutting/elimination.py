"""Which channels go first: backward elimination by what their readers lose once they have made up for it.

One channel of a family after the other is taken away, always the one whose absence costs the readers of the family
least after the best correction of their remaining weights; the corrections are kept. That is optimal brain surgeon
(Hassibi and Stork, NIPS 1992) for structures, layer by layer, as Kurtic, Frantar and Alistarh, "ZipLM" (NeurIPS 2023),
equations 2 to 4, and Meng et al., "OSSCAR" (ICML 2024) have it. What is new here: all readers of a family decide
together, those of a residual stream as well, each weighted by how strongly the outputs answer to its errors.

A reader of many inputs is too dear for this: it then makes up for a loss by scaling the channels that are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sartor.cholesky import factored
from sartor.core.errors import SingularError
from sartor.surgery.analysis.coupling import Coupling
from sartor.surgery.analysis.units import Dim, Units
from sartor.surgery.cutting.readers import Reader

RIDGE = 1e-2
"""Pull of the correction towards the weights as they are, relative to the mean square of what is read."""
FEATURES = 1200
"""Inputs up to which a reader corrects every weight: the cost grows with the third power."""
TOGETHER = 32
"""One in so many of the channels that are left goes at a time: the corrections are as good as one by one."""
OUTPUTS, ROWS = 64, 512
"""Of a reader of many inputs so many outputs and rows are looked at."""

Errors = NDArray[np.float64]


@dataclass(frozen=True)
class Elimination:
    """What taking away channels costs.

    Attributes:
        order: Unit -> how late it goes, `(units,)`; NaN for units that no reader has.
        errors: First unit of a family -> what its readers lose if so many of it are gone, `(members + 1,)`, as a share
            of all that they compute, each weighted by what its errors cost.
    """

    order: NDArray[np.float64]
    errors: dict[int, Errors]


def eliminate(coupling: Coupling, readers: Sequence[Reader]) -> Elimination:
    """Every family of every group by itself.

    Args:
        coupling: Of the network.
        readers: Its layers, with what they read.
    """
    units = coupling.tracker.units
    order, errors = np.full(len(units), np.nan), dict[int, Errors]()
    for group in coupling.groups:
        for family in group.families:
            parts = [part for reader in readers for part in _parts(reader, family, units)]
            if parts:
                gone, lost = _eliminated(parts, len(family))
                order[family[gone]] = np.arange(len(family))
                errors[int(family[0])] = lost / max(sum(p.energy for p in parts), 1e-30)
    return Elimination(order, errors)


class _Part:
    """A group of a reader's channels, as a least-squares problem that shrinks.

    Args:
        own: Input -> which member of the family it is, -1 if none.
        gram: Mean products of the inputs, `(inputs, inputs)`.
        weight: `(outputs, inputs)`.
        price: What a squared error of each output costs, `(outputs,)`.
    """

    def __init__(self, own: NDArray[np.int64], gram: Tensor, weight: Tensor, price: Tensor) -> None:
        self.energy = float(((weight @ gram) * weight).sum(1) @ price)
        self.weight, self.price = weight.clone(), price
        self.inverse = _inverse(gram)
        count = int(own.max()) + 1
        self.columns = [torch.from_numpy(np.flatnonzero(own == member)) for member in range(count)]

    def costs(self, left: Sequence[int]) -> Errors:
        """What the absence of each member costs after the best correction, `(left,)`."""
        found = np.zeros(len(left))
        sizes = np.array([len(self.columns[m]) if m < len(self.columns) else 0 for m in left])
        for size in np.unique(sizes[sizes > 0]).tolist():
            at = np.flatnonzero(sizes == size)
            columns = torch.stack([self.columns[left[i]] for i in at.tolist()])  # (members, size)
            block = self.inverse[columns[:, :, None], columns[:, None, :]]
            weight = self.weight[:, columns].permute(1, 2, 0)  # (members, size, outputs)
            found[at] = ((weight * torch.linalg.solve(block, weight)) * self.price).sum((1, 2)).numpy()
        return found

    def remove(self, member: int) -> None:
        """Take a member away; the other weights and the inverse follow (Hassibi and Stork, equation 5)."""
        columns = self.columns[member] if member < len(self.columns) else torch.empty(0, dtype=torch.long)
        if not len(columns):
            return
        step = torch.linalg.solve(self.inverse[columns][:, columns], self.inverse[columns])  # (size, inputs)
        self.weight -= self.weight[:, columns] @ step
        self.inverse -= self.inverse[:, columns] @ step
        self.weight[:, columns] = 0
        self.inverse[columns] = 0
        self.inverse[:, columns] = 0


def _eliminated(parts: Sequence[_Part], members: int) -> tuple[list[int], Errors]:
    """Members in the order in which they go, and what is lost after so many."""
    left, gone, lost = list(range(members)), list[int](), [0.0]
    while len(left) > 1:
        costs = np.sum([part.costs(left) for part in parts], axis=0)
        cheapest = np.argsort(costs, kind="stable")[: max(1, len(left) // TOGETHER)]
        for at in cheapest.tolist():
            member = left[at]
            lost.append(lost[-1] + max(0.0, float(costs[at])))
            gone.append(member)
            for part in parts:
                part.remove(member)
        taken = set(gone)
        left = [m for m in left if m not in taken]
    whole = sum(part.energy for part in parts)
    return [*gone, *left], np.array([*lost, max(lost[-1], whole)])


def _parts(reader: Reader, family: NDArray[np.int64], units: Units) -> list[_Part]:
    """The groups of a reader in which the family's channels are mixed; none where they only pass."""
    index = np.full(len(units) + 1, -1)
    index[family] = np.arange(len(family))
    reads, writes = (_members(dim, index, units) for dim in (reader.reads, reader.writes))
    if reads is None or (reads < 0).all() or (reader.groups > 1 and writes is not None and (writes >= 0).any()):
        return []
    rows = torch.cat(reader.rows, 1)
    price = (reader.slopes / 2).reshape(reader.groups, -1)
    found = []
    for group, part in enumerate(reads.reshape(reader.groups, -1)):
        own = np.repeat(part, reader.taps)
        if (own >= 0).any():
            make = _scaling if len(own) > FEATURES else _exact
            found.append(make(own, rows[group], reader.weight[group], price[group], free=reader.free))
    return found


def _members(dim: Dim, index: NDArray[np.int64], units: Units) -> NDArray[np.int64] | None:
    """Which member each index of a dimension belongs to, -1 for none; None if it depends on no unit."""
    roots = None if dim is None else units.resolve(dim)
    return None if roots is None else np.asarray(index[roots].max(1))


def _exact(own: NDArray[np.int64], rows: Tensor, weight: Tensor, price: Tensor, *, free: bool) -> _Part:
    """Every weight is corrected."""
    rows = _centred(rows.double(), free)
    return _Part(own, rows.mT @ rows / len(rows), weight, price)


def _scaling(own: NDArray[np.int64], rows: Tensor, weight: Tensor, price: Tensor, *, free: bool) -> _Part:
    """What the channels of the family add to the outputs is scaled, member by member; all else is left alone."""
    outputs = torch.linspace(0, len(weight) - 1, min(OUTPUTS, len(weight))).round().long()
    rows = _centred(rows[:ROWS], free)
    share = price[outputs] * (len(weight) / len(outputs))
    members = int(own.max()) + 1
    inside = torch.from_numpy(np.flatnonzero(own >= 0))
    place = torch.from_numpy(own[own >= 0])
    gram = torch.zeros(members, members, dtype=torch.float64)
    for output, worth in zip(outputs.tolist(), share.tolist(), strict=True):
        read = rows[:, inside] * weight[output, inside].float()
        added = torch.zeros(len(rows), members).index_add_(1, place, read)
        gram += worth * (added.mT @ added).double() / len(rows)
    one = torch.ones(1, dtype=torch.float64)
    return _Part(np.arange(members), gram, one.expand(1, members), one)


def _centred(rows: Tensor, free: bool) -> Tensor:
    return rows - rows.mean(0, keepdim=True) if free else rows


def _inverse(gram: Tensor) -> Tensor:
    """Of the ridged matrix; a larger ridge where that is singular in its numbers."""
    size = float(gram.diagonal().mean()) or 1.0
    ridge = RIDGE
    while True:
        try:
            lower, _ = factored(gram / size + ridge * torch.eye(len(gram), dtype=gram.dtype))
            return torch.cholesky_inverse(lower) / size
        except SingularError:
            ridge *= 10
            if ridge > 1e6:
                return torch.eye(len(gram), dtype=gram.dtype) / size

"""Functions of networks as tables: a constant, a number per option, and a number per pair of options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Values:
    """A function of networks: a constant, a table per choice, and a table per pair of choices.

    Attributes:
        constant: What no choice changes.
        single: `(d,)`, the options of all choices one after the other.
        pairs: `(d, d)`, of which the blocks above the diagonal count.
        offsets: Where the options of each choice start, and `d`.
    """

    constant: float
    single: Floats
    pairs: Floats
    offsets: Sequence[int]

    @classmethod
    def zero(cls, sizes: Sequence[int]) -> Values:
        """Zero everywhere."""
        d = sum(sizes)
        return cls(0.0, np.zeros(d), np.zeros((d, d)), [sum(sizes[:i]) for i in range(len(sizes) + 1)])

    def __add__(self, other: Values) -> Values:
        tables = self.single + other.single, self.pairs + other.pairs
        return Values(self.constant + other.constant, *tables, self.offsets)

    def block(self, i: int) -> slice:
        """Where the options of choice `i` are."""
        return slice(self.offsets[i], self.offsets[i + 1])

    def at(self, index: Ints) -> Floats:
        """The values of `(n, choices)` networks, `(n,)`."""
        columns = index + self.offsets[:-1]
        total = self.constant + self.single[columns].sum(1)
        for i in range(columns.shape[1]):
            total += self.pairs[columns[:, :i], columns[:, i : i + 1]].sum(1)
        return np.asarray(total)

    def grid(self) -> Floats:
        """The values of all networks, in lexicographic order."""
        total = np.array(self.constant)
        for i in range(len(self.offsets) - 1):
            # What choice i adds depends on all before it: as two arrays, each over one half of them.
            middle = i // 2
            near = self._added(i, range(middle, i))
            far = self._added(i, range(middle)) + self.single[self.block(i)]
            total = total.reshape(len(far), -1, 1) + far[:, None]
            total += near
        return np.asarray(total.reshape(-1))

    def _added(self, i: int, others: Sequence[int]) -> Floats:
        """`(n, k_i)`: the sum of the pairs of choice `i` with others, for all their `n` joint options."""
        options = self.pairs[:, self.block(i)]
        found = np.zeros((1, options.shape[1]))
        for j in others:
            found = (found[:, None] + options[self.block(j)]).reshape(-1, options.shape[1])
        return found

"""What can be removed from a network: units, and the labels that say which units an index of a tensor belongs to.

Every dimension of every tensor of a traced network is either *static* (`None`: its indices stay) or labelled: an array
of unit numbers of shape `(n, k)`, one row per index, padded with -1. An index is kept if **all** units of its row are
kept; a row without a unit is always kept. Making two dimensions equal (the terms of a sum, say) unites their units
index by index, so whatever is removed afterwards, the two stay aligned. That holds for any subset of the units: every
slice that follows the labels is a valid network.

A unit may be *bound* to a set of others: when a dimension of `a * b` channels is viewed as two, its unit (i, j) becomes
the pair (u_i, v_j). A unit may be *pinned*: it is always kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Labels: TypeAlias = NDArray[np.int64]
"""`(n, k)` unit numbers, -1 for none."""
Dim: TypeAlias = Labels | None
"""The labels of a dimension, or None: static."""


@dataclass(frozen=True)
class Pin:
    """Why units must stay: `what` names the place, `reason` the rule."""

    labels: Labels
    what: str
    reason: str


class Units:
    """Union-find over units, with bindings and pins."""

    def __init__(self) -> None:
        self._parent = np.arange(1024)
        self._row = np.full(1024, -1)  # of a bound unit: its row in _bound
        self._pinned = np.zeros(1024, dtype=bool)
        self._batch = np.zeros(1024, dtype=bool)
        self._bound = np.empty((0, 1), dtype=np.int64)  # what units are bound to, padded with -1
        self._size = 0
        self.pins: list[Pin] = []
        """All pins, in the order they were made."""
        self.where = ""
        """The place that the next pins are blamed on."""

    def __len__(self) -> int:
        return self._size

    def fresh(self, count: int) -> Labels:
        """New units, `(count, 1)`."""
        while self._size + count > len(self._parent):
            more = len(self._parent)
            self._parent = np.concatenate([self._parent, np.arange(more, 2 * more)])
            self._row = np.concatenate([self._row, np.full(more, -1)])
            self._pinned = np.concatenate([self._pinned, np.zeros(more, dtype=bool)])
            self._batch = np.concatenate([self._batch, np.zeros(more, dtype=bool)])
        first, self._size = self._size, self._size + count
        return np.arange(first, first + count)[:, None]

    def batch(self, count: int) -> Labels:
        """New units that stand for the examples of a batch: they stay, and are told apart from pinned ones."""
        labels = self.fresh(count)
        self._batch[labels] = True
        return labels

    def find(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """The representatives; -1 stays."""
        roots = self._parent[units]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                break
            roots = above
        self._parent[units] = roots
        return np.where(units < 0, -1, roots)

    def resolve(self, labels: Dim) -> Dim:
        """The same with bound units replaced by what they are bound to, representatives, and without pinned ones."""
        if labels is None:
            return None
        columns = [self.find(column) for column in labels.T]
        open_columns, done = columns, list[NDArray[np.int64]]()
        while open_columns:
            column = open_columns.pop()
            rows = np.where(column < 0, -1, self._row[column])
            if not (rows >= 0).any():
                done.append(column)
                continue
            at = rows >= 0
            members = self._bound[rows[at]]
            table = np.full((len(column), members.shape[1]), -1)
            table[at] = members
            table[~at, 0] = column[~at]
            open_columns += [self.find(c) for c in table.T if (c >= 0).any()]
        done.reverse()
        kept: list[NDArray[np.int64]] = []
        for column in done:
            bare = np.where((column >= 0) & self._pinned[column] & ~self._batch[column], -1, column)
            if (bare >= 0).any() and not any(np.array_equal(bare, other) for other in kept):
                kept.append(bare)
        return np.stack(kept, 1) if kept else None

    def leaves(self, labels: Labels) -> list[int]:
        """All units that the labels depend on in the end, pinned ones too."""
        open_units, found = set(self.find(labels[labels >= 0]).tolist()), set[int]()
        while open_units:
            unit = open_units.pop()
            if self._row[unit] >= 0:
                members = self._bound[self._row[unit]]
                open_units |= set(self.find(members[members >= 0]).tolist()) - found
            else:
                found.add(unit)
        return sorted(found)

    def pin(self, dim: Dim, reason: str) -> None:
        """These units stay, because of `reason`."""
        labels = self.resolve(dim)
        if labels is None:
            return
        members = np.unique(labels[labels >= 0])
        members = members[~self._batch[members]]
        if len(members):
            self._pinned[members] = True
            self.pins.append(Pin(members[:, None], self.where, reason))

    def pinned(self, units: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each representative is pinned."""
        return self._pinned[units]

    def is_batch(self, units: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each representative stands for an example."""
        return (units >= 0) & self._batch[units]

    def equal(self, one: Dim, other: Dim, reason: str) -> Dim:
        """Make two dimensions of the same size equal; what cannot be told apart is pinned, because of `reason`."""
        if one is other:
            return one
        a, b = self.resolve(one), self.resolve(other)
        if a is None or b is None:
            self.pin(a if b is None else b, reason)
            return None
        self._equate(list(a.T), list(b.T), reason)
        return one

    def _equate(self, a: list[NDArray[np.int64]], b: list[NDArray[np.int64]], reason: str) -> None:
        if len(a) == len(b) == 1:
            self._unite(a[0], b[0], reason)
            return
        self._match(a, b, reason)
        if not a or not b:
            for column in [*a, *b]:
                self.pin(column[:, None], reason)
        elif len(a) == 1 and self._free(a[0], b):
            self._bind(a[0], np.stack(b, 1))
        elif len(b) == 1 and self._free(b[0], a):
            self._bind(b[0], np.stack(a, 1))
        else:
            for column in [*a[1:], *b]:
                self._unite(a[0], column, reason)

    def _match(self, a: list[NDArray[np.int64]], b: list[NDArray[np.int64]], reason: str) -> None:
        """Drop what both sides have; unite columns that repeat alike, and drop them."""
        for column in list(a):
            same = next((o for o in b if np.array_equal(o, column)), None)
            if same is not None:
                _drop(a, column)
                _drop(b, same)
        for column in list(a):
            pattern = _pattern(column)
            like = next((o for o in b if np.array_equal(_pattern(o), pattern)), None)
            if like is not None:
                self._unite(column, like, reason)
                _drop(a, column)
                _drop(b, like)

    def _unite(self, a: NDArray[np.int64], b: NDArray[np.int64], reason: str) -> None:
        alone = (a < 0) != (b < 0)
        if alone.any():
            self.pin(np.where(alone, np.maximum(a, b), -1)[:, None], reason)
        both = (a >= 0) & (b >= 0)
        a, b = a[both], b[both]
        while len(a):
            left, right = self.find(a), self.find(b)
            differ = left != right
            if not differ.any():
                return
            a, b = a[differ], b[differ]
            low, high = np.minimum(left, right)[differ], np.maximum(left, right)[differ]
            rows = self._row[low] >= 0, self._row[high] >= 0
            if rows[0].any() or rows[1].any():  # a bound unit met another in this very call: keep all of them
                self.pin(np.concatenate([low, high])[:, None], reason)
                return
            self._parent[high] = low
            for flags in (self._pinned, self._batch):
                np.logical_or.at(flags, low, flags[high])

    def _free(self, column: NDArray[np.int64], others: Sequence[NDArray[np.int64]]) -> bool:
        """Whether each unit of the column occurs once and in none of the others, so that it can be bound."""
        if (column < 0).any() or len(np.unique(column)) < len(column) or self._batch[column].any():
            return False
        return not any(np.isin(column, other).any() for other in others)

    def _bind(self, column: NDArray[np.int64], members: Labels) -> None:
        first, width = len(self._bound), max(self._bound.shape[1], members.shape[1])
        pad = ((0, 0), (0, width - self._bound.shape[1])), ((0, 0), (0, width - members.shape[1]))
        old, new = (np.pad(a, p, constant_values=-1) for a, p in zip((self._bound, members), pad, strict=True))
        self._bound = np.concatenate([old, new])
        self._row[column] = np.arange(first, first + len(column))
        pinned = self._pinned[column]
        if pinned.any():
            self.pin(members[pinned], "bound to pinned units")

    def split(self, dim: Dim, sizes: Sequence[int], reason: str) -> list[Dim]:
        """View one dimension of `prod(sizes)` indices as several."""
        labels = self.resolve(dim)
        found: list[list[NDArray[np.int64]]] = [[] for _ in sizes]
        for column in () if labels is None else labels.T:
            grid = column.reshape(*sizes)
            along = [d for d in range(len(sizes)) if not (grid == grid.take([0], d)).all()]
            if len(along) > 1:
                self._factor(grid, along, found, reason)
            elif along:
                found[along[0]].append(_line(grid, along[0]))
            elif column[0] >= 0:  # one unit for all: with it the whole dimension would go
                self.pin(column[:1, None], reason)
        return [np.stack(columns, 1) if columns else None for columns in found]

    def _factor(
        self, grid: NDArray[np.int64], along: Sequence[int], found: list[list[NDArray[np.int64]]], reason: str
    ) -> None:
        core = grid[tuple(slice(None) if d in along else 0 for d in range(grid.ndim))]
        same = (grid == np.expand_dims(core, [d for d in range(grid.ndim) if d not in along])).all()
        flat = core.reshape(-1)
        if not same or not self._free(flat, ()):
            self.pin(flat[:, None], reason)
            return
        factors = [self.fresh(grid.shape[d])[:, 0] for d in along]
        places = np.indices(core.shape).reshape(len(along), -1)
        self._bind(flat, np.stack([f[p] for f, p in zip(factors, places, strict=True)], 1))
        for d, factor in zip(along, factors, strict=True):
            found[d].append(factor)

    def merge(self, dims: Sequence[Dim], sizes: Sequence[int]) -> Dim:
        """The labels of several dimensions viewed as one."""
        if all(dim is None for dim in dims):
            return None
        parts = []
        for d, dim in enumerate(dims):
            if dim is not None:
                shape = [1] * len(sizes)
                shape[d] = sizes[d]
                for column in dim.T:
                    parts.append(np.broadcast_to(column.reshape(shape), sizes).reshape(prod(sizes)))
        return np.stack(parts, 1)


def stack(dims: Sequence[Dim], sizes: Sequence[int]) -> Dim:
    """The labels of a concatenation."""
    if all(dim is None for dim in dims):
        return None
    width = max(1 if dim is None else dim.shape[1] for dim in dims)
    parts = []
    for dim, size in zip(dims, sizes, strict=True):
        block = np.full((size, width), -1)
        if dim is not None:
            block[:, : dim.shape[1]] = dim
        parts.append(block)
    return np.concatenate(parts)


def _pattern(column: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which entries are equal: every entry's first place."""
    _, first, inverse = np.unique(column, return_index=True, return_inverse=True)
    places: NDArray[np.int64] = np.where(column < 0, -1, first[inverse])
    return places


def _drop(columns: list[NDArray[np.int64]], column: NDArray[np.int64]) -> None:
    del columns[next(i for i, c in enumerate(columns) if c is column)]


def _line(grid: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    index: list[Any] = [0] * grid.ndim
    index[axis] = slice(None)
    line: NDArray[np.int64] = grid[tuple(index)]
    return line

"""Networks built layer by layer inside limits: what is still possible after the first few layers, and what is best.

A prefix is the options of the first layers; a layer is a choice. The cheapest completion of a prefix tells whether it
can still meet the limits, and its cost is what prefixes are put into buckets by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sartor import archs
from sartor.core.abilities import Terms
from sartor.core.contracts import CostModel, Problem, Space
from sartor.core.errors import BudgetError
from sartor.core.records import Arch
from sartor.core.tables import Tables
from sartor.surrogates.values import Floats, Ints, Values

DENSE, ASKED = 2**16, 2**12
"""Spaces with so many networks are enumerated: with costs that are tables, and with others."""
CROWD = 64
"""Prefixes kept per layer where a cost model has to be asked for each."""


class Bound(Protocol):
    """A limit on one metric."""

    def least(self, index: Ints) -> Floats:
        """What the cheapest completions of `(n, layers)` prefixes cost, `(n,)`; never more than they do."""


class TableBound:
    """Of a sum of per-choice and pairwise terms.

    The layers to come are taken at their cheapest, each with the prefix, and each pair of them at its cheapest. That is
    exact where one option of a layer is cheapest whatever the others are, as in spaces of widths, and else too low.
    """

    def __init__(self, tables: Tables) -> None:
        self.constant = tables.constant
        self.single = [u.numpy() for u in tables.unary]
        self.pairs = [(i, j, p.numpy()) for (i, j), p in tables.pairwise.items()]

    def least(self, index: Ints) -> Floats:
        """See `Bound`."""
        depth, total = index.shape[1], np.full(len(index), float(self.constant))
        later = [np.tile(u, (len(index), 1)) for u in self.single[depth:]]
        for i, table in enumerate(self.single[:depth]):
            total += table[index[:, i]]
        for i, j, table in self.pairs:
            if j < depth:
                total += table[index[:, i], index[:, j]]
            elif i < depth:
                later[j - depth] += table[index[:, i]]
            else:
                total += table.min()
        return np.asarray(total + sum((rows.min(1) for rows in later), np.zeros(len(index))))

    def most(self) -> float:
        """No network costs more."""
        return self.constant + sum(float(t.max()) for t in [*self.single, *(p for _, _, p in self.pairs)])


class PeakBound:
    """Of the largest of several sums."""

    def __init__(self, tables: Sequence[Tables]) -> None:
        self.parts = [TableBound(t) for t in tables]

    def least(self, index: Ints) -> Floats:
        """See `Bound`."""
        return np.asarray(np.max([part.least(index) for part in self.parts], axis=0))

    def most(self) -> float:
        """No network costs more."""
        return max(part.most() for part in self.parts)


class AskedBound:
    """Of any cost model: it is asked for the prefix with the cheapest option of each layer to come.

    These options are found one layer at a time, the others at their cheapest so far.
    """

    def __init__(self, cost: CostModel, space: Space) -> None:
        self._cost, self._space, self._known = cost, space, dict[Arch, float]()
        self.cheapest = archs.smallest(space)
        for _ in range(2):
            for i, choice in enumerate(space.choices):
                options = [(*self.cheapest[:i], k, *self.cheapest[i + 1 :]) for k in range(len(choice.options))]
                values = self._ask(options)
                self.cheapest = options[min(range(len(options)), key=values.__getitem__)]

    def least(self, index: Ints) -> Floats:
        """See `Bound`."""
        rest = self.cheapest[index.shape[1] :]
        return np.array(self._ask([(*row, *rest) for row in index.tolist()]))

    def most(self) -> float:
        """The largest cost seen so far, that of the last options included."""
        self._ask([archs.largest(self._space)])
        return max(self._known.values())

    def _ask(self, networks: Sequence[Arch]) -> list[float]:
        whole = [self._space.canonical(a) for a in networks]
        new = [a for a in dict.fromkeys(whole) if a not in self._known]
        if new:
            self._known |= dict(zip(new, self._cost(new).tolist(), strict=True))
        return [self._known[a] for a in whole]


def _bound(cost: CostModel, space: Space) -> TableBound | PeakBound | AskedBound:
    terms = cost.terms() if isinstance(cost, Terms) else ()
    if len(terms) > 1:
        return PeakBound(terms)
    return TableBound(terms[0]) if terms else AskedBound(cost, space)


class Layers:
    """The limits of a problem, seen from its layers.

    Args:
        problem: Any; constraints without a cost model are left out.
        limits: Metric -> upper bound.
        buckets: How many there are, of equal width.
        metric: Which cost they are buckets of; empty: the one that has used most of what its limit leaves beyond the
            cheapest network. Without limits it is the first cost there is.

    Raises:
        BudgetError: Not even the cheapest network meets the limits.
    """

    def __init__(self, problem: Problem, limits: Mapping[str, float], buckets: int, metric: str = "") -> None:
        self.space, self.buckets = problem.space, buckets
        self.sizes = tuple(len(c.options) for c in problem.space.choices)
        bounds = {m: _bound(problem.cost(m), problem.space) for m in limits}
        others = [m for m in ([metric] if metric else list(problem.costs or {})[:1]) if m not in limits]
        spread = bounds | {m: _bound(problem.cost(m), problem.space) for m in others if metric or not limits}
        self._limits = [(bound, limits[m]) for m, bound in bounds.items()]
        root = np.zeros((1, 0), dtype=np.int64)
        floor = {m: float(bound.least(root)[0]) for m, bound in spread.items()}
        for m, upper in limits.items():
            if floor[m] > upper:
                name = type(problem.space).__name__
                raise BudgetError(
                    f"no network of {name} has {m} <= {upper:g}, the smallest reached is {floor[m]:g}; raise it"
                )
        self._spread = [
            (bound, floor[m], min(limits.get(m, np.inf), bound.most()))
            for m, bound in spread.items()
            if not metric or m == metric
        ]
        self.asked = any(isinstance(b, AskedBound) for b in spread.values())

    def fits(self, index: Ints) -> NDArray[np.bool_]:
        """Which of `(n, layers)` prefixes may still meet the limits, `(n,)`; for whole networks, which do."""
        found = np.ones(len(index), dtype=np.bool_)
        for bound, upper in self._limits:
            found &= bound.least(index) <= upper
        return found

    def place(self, index: Ints) -> Floats:
        """Cost of the cheapest completions: 0 for the cheapest network, 1 at the limit, `(n,)`."""
        found = np.zeros(len(index))
        for bound, low, high in self._spread:
            found = np.maximum(found, (bound.least(index) - low) / max(high - low, 1e-300))
        return found

    def bucket(self, index: Ints) -> Ints:
        """The bucket of each of `(n, layers)` prefixes, `(n,)`: 0 is the cheapest."""
        return np.floor(self.place(index) * self.buckets + 1e-9).astype(np.int64)

    def filled(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """A network inside the limits with one choice after the other, in random order, at its dearest that fits."""
        for i in rng.permutation(len(self.sizes)).tolist():
            options = np.array([(*arch[:i], o, *arch[i + 1 :]) for o in range(self.sizes[i])])
            place = np.where(self.fits(options), self.place(options), -1.0)
            if place.max() > place[arch[i]]:
                arch = self.space.canonical(tuple(options[int(place.argmax())].tolist()))
        return arch

    def trends(self) -> Floats:
        """Per cost its logarithm for each option, all other choices at their middle ones, `(m, d)`.

        What tables forbid, with an infinite cost, is taken as the dearest of the others.
        """
        middle = [k // 2 for k in self.sizes]
        rows = [(*middle[:i], o, *middle[i + 1 :]) for i, k in enumerate(self.sizes) for o in range(k)]
        costs = np.array([bound.least(np.array(rows)) for bound, _, _ in self._spread]).reshape(-1, len(rows))
        dearest = np.where(np.isfinite(costs), costs, -np.inf).max(1, keepdims=True, initial=0.0)
        return np.asarray(np.log(np.maximum(np.minimum(costs, dearest), 1e-12)))

    def dense(self) -> bool:
        """Whether the space is small enough to be enumerated."""
        return prod(self.sizes) <= (ASKED if self.asked else DENSE)


class Grid:
    """All networks of a small space inside the limits that have not been taken yet."""

    def __init__(self, layers: Layers) -> None:
        self.sizes = layers.sizes
        index = np.indices(self.sizes).reshape(len(self.sizes), -1).T
        left = layers.fits(index)
        if type(layers.space).canonical is not Space.canonical:
            left &= np.array([layers.space.canonical(a) == a for a in map(tuple, index.tolist())])
        self._bar = np.where(left, 0.0, -np.inf)
        self._left = int(left.sum())

    def take(self, arch: Arch) -> None:
        """This network is no candidate any more."""
        at = np.ravel_multi_index(arch, self.sizes)
        self._left -= int(self._bar[at] == 0)
        self._bar[at] = -np.inf

    def best(self, values: Values, count: int) -> Ints:
        """The networks with the largest values, best first, `(n, choices)`; fewer than `count` if no more are left."""
        total = values.grid()
        total += self._bar
        at = largest(total, min(count, self._left))
        return np.stack(np.unravel_index(at, self.sizes), 1).astype(np.int64)

    def rest(self) -> Ints:
        """All that are left, `(n, choices)`."""
        return np.stack(np.unravel_index(np.flatnonzero(self._bar == 0), self.sizes), 1).astype(np.int64)


def largest(values: Floats, count: int) -> Ints:
    """Where the `count` largest values are, largest first; of equal ones the first."""
    if count <= 0:
        return np.zeros(0, dtype=np.int64)
    # A sample bounds the smallest of them from below, so that few are sorted.
    sample = values[:: max(1, len(values) // 2048)]
    share = 4 * count * len(sample) // len(values) + 1
    bar = np.partition(sample, -share)[-share] if share < len(sample) else -np.inf
    near = np.flatnonzero(values >= bar)
    if len(near) < count or not np.isfinite(bar):
        near = np.arange(len(values))
    return np.asarray(near[np.lexsort((near, -values[near]))[:count]])


class Beam:
    """The networks of a space of any size, by dynamic programming over layers and buckets of cost.

    Args:
        layers: With the limits.
        kept: How many prefixes are kept per layer and bucket.
    """

    def __init__(self, layers: Layers, kept: int) -> None:
        self.layers, self.kept, self._taken = layers, kept, set[Arch]()

    def take(self, arch: Arch) -> None:
        """This network is no candidate any more."""
        self._taken.add(arch)

    def best(self, values: Values, count: int) -> Ints:
        """About the networks with the largest values, best first, `(n, choices)`; fewer if no more are found.

        With `kept` at least 1, buckets no wider than the differences of costs, and values and costs without pairs, the
        first one is the best of all.
        """
        layers, sizes = self.layers, self.layers.sizes
        index, score = np.zeros((1, 0), dtype=np.int64), np.array([values.constant])
        added = np.zeros((1, values.offsets[-1]))
        for i, k in enumerate(sizes):
            block = values.block(i)
            score = (score[:, None] + values.single[block] + added[:, block]).reshape(-1)
            index = np.concatenate([np.repeat(index, k, 0), np.tile(np.arange(k), len(index))[:, None]], 1)
            fits = np.flatnonzero(layers.fits(index))
            if i < len(sizes) - 1:
                fits = fits[self._keep(layers.bucket(index[fits]), score[fits])]
                added = added[fits // k] + values.pairs[block][fits % k]
            index, score = index[fits], score[fits]
        return self._whole(index[np.argsort(-score, kind="stable")], count)

    def rest(self) -> Ints:
        """A sample of what is left, `(n, choices)`: the networks that end the buckets when nothing is known."""
        return self.best(Values.zero(self.layers.sizes), 4 * CROWD)

    def _keep(self, bucket: Ints, score: Floats) -> Ints:
        """The best of each bucket, as positions."""
        order = np.lexsort((-score, bucket))
        ordered = bucket[order]
        start = np.searchsorted(ordered, ordered)
        order = order[np.arange(len(order)) - start < self.kept]
        if self.layers.asked and len(order) > CROWD:
            order = order[np.argsort(-score[order], kind="stable")[:CROWD]]
        return np.asarray(order)

    def _whole(self, index: Ints, count: int) -> Ints:
        found: dict[Arch, None] = {}
        for row in index.tolist():
            arch = self.layers.space.canonical(tuple(row))
            if arch in self._taken or arch in found:
                continue
            if arch == tuple(row) or self.layers.fits(np.array([arch]))[0]:
                found[arch] = None
            if len(found) == count:
                break
        return np.array(list(found), dtype=np.int64).reshape(-1, len(self.layers.sizes))

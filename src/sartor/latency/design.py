"""From archs to the matrices of a regression: which table entries occur how often, their neighbours, physical terms.

Source: Berman et al., "AOWS: Adaptive and optimal network width search with latency constraints", CVPR 2020,
section 4.1 (entries keyed by the kind of layer, not by its place; neighbours of the monotone penalty).
The physical terms are this package's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise, product
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sartor.core.abilities import Layered
from sartor.core.records import Arch, Choice, Layer, LayerKey
from sartor.core.tables import Tables

Floats: TypeAlias = NDArray[np.float64]

BLOCK = 16
"""Default block: kernels process channels in blocks (the width of a vector register), so cost is a staircase."""
UNEVEN = (8, 16)
"""Blocks of channels (vectors of 256 and 512 bits) that a layer may miss."""
CACHES = (2**16, 2**18)
"""Weights (float32) beyond which a layer may slow down: a quarter of a second-level cache of 1 MiB, and all of it."""
MOVING = frozenset({"add", "pad", "pool"})
"""Kinds of layers that have no weights and multiply nothing."""


class Entries(ABC):
    """The table entries of a space: what the latency models are fitted over.

    Attributes:
        choices: Of the space.
        keys: Every entry that some arch uses.
        longest: How many entries, counted as often as they are used, a network has at most.
    """

    choices: tuple[Choice, ...]
    keys: tuple[Hashable, ...]
    longest: int

    @abstractmethod
    def matrix(self, archs: Sequence[Arch]) -> sparse.csr_array:
        """How often each arch uses each entry, `(archs, keys)`."""

    @abstractmethod
    def tables(self, values: Floats, constant: float = 0.0) -> Tables:
        """The sum over a network's entries of `values`, `(keys,)`, plus `constant`."""

    @abstractmethod
    def macs(self) -> Floats:
        """Multiply-adds of each entry, `(keys,)`."""

    @property
    @abstractmethod
    def neighbours(self) -> sparse.csr_array:
        """One row per pair of adjacent entries, +1 on the one that should not be slower and -1 on the other."""

    @abstractmethod
    def physical(self, block: int = BLOCK) -> Floats:
        """Terms of each entry, `(keys, terms)`, each scaled to a mean of 1 over the entries that have it."""

    @abstractmethod
    def correlation(self, length: float, block: int = BLOCK) -> Floats:
        """Prior correlation of the entries' deviations from the terms, `(keys, keys)`."""


class Design(Entries):
    """The table entries of a width space.

    Attributes:
        keys: Every entry that some arch uses, sorted.
        layers: The layers of the space.
    """

    def __init__(self, space: Layered) -> None:
        self.choices = tuple(space.choices)
        self.layers = tuple(space.layers())
        self.longest = len(self.layers)
        self.keys: tuple[LayerKey, ...] = tuple(sorted({key for layer in self.layers for key in _keys(layer)}))
        self._index = {key: i for i, key in enumerate(self.keys)}
        self._physical: dict[int, Floats] = {}
        self._correlations: dict[tuple[float, int], Floats] = {}

    def matrix(self, archs: Sequence[Arch]) -> sparse.csr_array:
        """How often each arch uses each entry, `(archs, keys)`: the M of AOWS."""
        rows = [[self._index[layer.key(arch)] for layer in self.layers] for arch in archs]
        columns = np.array(rows, dtype=np.int64).reshape(-1)
        starts = np.arange(len(archs) + 1) * len(self.layers)
        counts = sparse.csr_array((np.ones(len(columns)), columns, starts), shape=(len(archs), len(self.keys)))
        counts.sum_duplicates()
        return counts

    def tables(self, values: Floats, constant: float = 0.0) -> Tables:
        """The sum over layers of `values`, `(keys,)`, plus `constant`."""
        tables = Tables.of_layers(self.choices, self.layers, lambda key: float(values[self._index[key]]))
        return Tables(tables.unary, tables.pairwise, tables.constant + constant)

    def macs(self) -> Floats:
        """Multiply-adds of each entry, `(keys,)`."""
        return np.array([macs(key) for key in self.keys])

    @cached_property
    def neighbours(self) -> sparse.csr_array:
        """One row per pair of adjacent entries, +1 on the smaller and -1 on the larger: the D of AOWS.

        Adjacent: equal but for c_in, or c_out, or in_size (or both channels, where one choice sets them together).
        """
        pairs = sorted({pair for axis in (_along_in, _along_out, _along_size) for pair in self._pairs(axis)})
        single = set(range(len(self.keys))) - {i for pair in pairs for i in pair}
        pairs += [pair for pair in self._pairs(_along_both) if single.issuperset(pair)]
        small, large = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        n, ones = len(pairs), np.ones(len(pairs))
        entries = (np.concatenate([ones, -ones]), (np.tile(np.arange(n), 2), np.concatenate([small, large])))
        return sparse.csr_array(sparse.coo_array(entries, shape=(n, len(self.keys))))

    def _pairs(self, axis: Callable[[LayerKey], tuple[Any, Any]]) -> list[tuple[int, int]]:
        lines: dict[Any, list[tuple[Any, int]]] = defaultdict(list)
        for i, key in enumerate(self.keys):
            rest, position = axis(key)
            lines[rest].append((position, i))
        return [(a, b) for line in lines.values() for (_, a), (_, b) in pairwise(sorted(line))]

    def physical(self, block: int = BLOCK) -> Floats:
        """Physical terms of each entry, `(keys, terms)`, each scaled to a mean of 1 over the entries that have it."""
        if block not in self._physical:
            self._physical[block] = scaled([terms(key, block) for key in self.keys])
        return self._physical[block]

    def correlation(self, length: float, block: int = BLOCK) -> Floats:
        """Prior correlation of the entries, `(keys, keys)`: how alike their deviations from the physical terms are.

        Squared exponential in log blocked channels within layers of one kind, size and stride, zero between others.
        """
        if (length, block) not in self._correlations:
            classes: dict[Any, int] = {}
            label = np.array([classes.setdefault(key[:5], len(classes)) for key in self.keys])
            channels = [[_blocked(key.c_in, block), _blocked(key.c_out, block)] for key in self.keys]
            axes = np.log(np.maximum(channels, 1)).T  # a skipped block has none
            squares = np.sum([(axis[:, None] - axis[None]) ** 2 for axis in axes], axis=0) / length**2
            found = np.where(label[:, None] == label[None], np.exp(-squares / 2), 0.0)
            self._correlations[length, block] = found
        return self._correlations[length, block]


def scaled(rows: Sequence[Mapping[str, float]]) -> Floats:
    """One row of named terms per entry as a matrix, `(keys, terms)`, each column with a mean of 1 where it is not 0."""
    names = sorted({name for row in rows for name in row})
    raw = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    used = np.maximum((raw > 0).sum(axis=0), 1)
    return np.asarray(raw / np.maximum(raw.sum(axis=0) / used, 1e-30))


def macs(key: LayerKey) -> float:
    """Multiply-adds of one layer; one image."""
    pixels = prod(key.out_size)
    if key.kind in MOVING:
        return 0.0
    if key.kind == "depthwise":
        return float(pixels * key.taps * key.c_out)
    if key.kind == "separable":
        return float(pixels * (key.taps * key.c_in + key.c_in * key.c_out))
    return float(pixels * key.taps * key.c_in * key.c_out)


def terms(key: LayerKey, block: int = BLOCK) -> dict[str, float]:
    """What may cost time in one layer; every term enters the latency with a non-negative factor of its own.

    Per kind of layer: blocked multiply-adds, weights to be read, values read and written, a constant; more per value
    where there are fewer channels than a block (slower kernels), more per value and multiply-add where channels are no
    multiple of one, and more per weight and multiply-add where the weights outgrow a cache. A separable layer has the
    terms of its depthwise and of its pointwise part.
    """
    if key.kind == "separable":
        depthwise = key._replace(kind="depthwise", c_out=key.c_in)
        pointwise = key._replace(kind="conv", in_size=key.out_size, kernel=1, stride=1)
        return terms(depthwise, block) | terms(pointwise, block)
    return _plain(key, block) if key.c_in and key.c_out else {}  # nothing of a block that is skipped


def _plain(key: LayerKey, block: int) -> dict[str, float]:
    name, area = f"{key.kind}{key.kernel}/{key.stride}", key.taps
    c_in, c_out, pixels = _blocked(key.c_in, block), _blocked(key.c_out, block), prod(key.out_size)
    if key.kind == "depthwise":
        return {f"{name} macs": pixels * area * c_out, f"{name} input": prod(key.in_size) * c_in, name: 1.0}
    if key.kind in MOVING:
        return {f"{name} values": _values(c_in, c_out, key), name: 1.0}
    if key.c_in <= 4:  # an image: kernels do not pad its channels
        c_in = float(key.c_in)
    weights, values = area * c_in * c_out, _values(c_in, c_out, key)
    found = {f"{name} macs": weights * pixels, f"{name} weights": weights, f"{name} values": values, name: 1.0}
    found |= _uneven(key)
    if min(key.c_in, key.c_out) < block:
        found[f"{name} narrow"] = values
    for cache in CACHES:
        if weights > cache:
            found[f"{name} weights over {cache}"] = weights - cache
            found[f"{name} macs over {cache}"] = (weights - cache) * pixels
    return found


def _uneven(key: LayerKey) -> dict[str, float]:
    """What channels that fill no block may cost more: runtimes keep blocked layouts for the others only."""
    macs, values = float(prod(key.out_size) * key.taps * key.c_in * key.c_out), _values(key.c_in, key.c_out, key)
    found = dict[str, float]()
    for side, channels in (("in", key.c_in), ("out", key.c_out)):
        for block in UNEVEN:
            if channels % block and channels > 4:  # images are never blocked
                name = f"{key.kind} {side} not of {block}"
                found |= {f"{name}, macs": macs, f"{name}, values": values}
    return found


def _values(c_in: float, c_out: float, key: LayerKey) -> float:
    """Numbers read and written."""
    return prod(key.in_size) * c_in + prod(key.out_size) * c_out


def _blocked(channels: int, block: int) -> float:
    return float(-(-channels // block) * block)


def _keys(layer: Layer) -> set[LayerKey]:
    both = layer.c_in.choice is not None and layer.c_in.choice == layer.c_out.choice
    sizes = (
        zip(layer.c_in.sizes, layer.c_out.sizes, strict=True) if both else product(layer.c_in.sizes, layer.c_out.sizes)
    )
    return {layer.sized(c_in, c_out) for c_in, c_out in sizes}


def _along_in(key: LayerKey) -> tuple[Any, Any]:
    return key._replace(c_in=0), key.c_in


def _along_out(key: LayerKey) -> tuple[Any, Any]:
    return key._replace(c_out=0), key.c_out


def _along_both(key: LayerKey) -> tuple[Any, Any]:
    return key._replace(c_in=0, c_out=0), (key.c_in, key.c_out)


def _along_size(key: LayerKey) -> tuple[Any, Any]:
    return key._replace(in_size=(0, 0)), key.in_size

"""MACs, parameters and peak memory of compressed networks: exact, without building them, for many archs at once.

Three choices meet in a layer (whether it stays and its two widths), and skips keep values alive, so that these costs
are no tables as those of `sartor.surgery.analysis.accounting`, with which they agree where nothing is removed or added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sartor.core.records import Arch
from sartor.surgery.analysis.accounting import allocates
from sartor.surgery.analysis.operators.recurrent import inside, is_recurrent
from sartor.surgery.analysis.trace import BATCH
from sartor.surgery.analysis.tracker import operator_name
from sartor.surgery.analysis.units import Dim
from sartor.surgery.analysis.work import uses
from sartor.surgery.students.choices import Plan, Students
from sartor.surgery.students.rewiring import VIEWS, Wiring

Values = NDArray[np.float64]


class Channels:
    """Sizes of dimensions in many archs; equal dimensions are counted once.

    Args:
        wiring: Says which places a dimension has.
    """

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._columns: dict[bytes, int] = {}
        self._places: list[NDArray[np.int64]] = []
        self._several: dict[int, tuple[NDArray[np.int64], int]] = {}
        self._counts: Values | None = None

    def add(self, dim: Dim, full: int) -> int:
        """The column of a dimension in `values`."""
        places, skeleton = self._wiring.places(dim, full), self._wiring.skeleton
        if places is not None:
            key = places.tobytes()
        else:
            assert dim is not None
            roots = skeleton.roots(dim)
            assert roots is not None
            places, key = self._wiring.places.number[roots], roots.tobytes()
        if key not in self._columns:
            self._columns[key] = column = len(self._places)
            self._places.append(places)
            if places.ndim > 1:
                self._several[column] = places, BATCH if skeleton.period(dim) else 1
        return self._columns[key]

    def values(self, kept: NDArray[np.bool_]) -> Values:
        """`(archs, columns)` for which places stay, `(archs, places)`."""
        found = kept.astype(np.float64) @ self._matrix(kept.shape[1], len(self._places))
        for column, (places, examples) in self._several.items():
            found[:, column] = kept[:, places].all(2).sum(1) / examples
        return found

    def _matrix(self, places: int, columns: int) -> Values:
        """How often each place occurs in each column."""
        if self._counts is None or self._counts.shape[1] != columns:
            rows = [np.bincount(p.reshape(-1), minlength=places) for p in self._places]
            self._counts = np.stack(rows, 1).astype(np.float64) if rows else np.zeros((places, 0))
        return self._counts


class Tally:
    """Counts students.

    Args:
        students: The choices.
        network: Holds the parameters.
    """

    def __init__(self, students: Students, network: nn.Module) -> None:
        self.students, wiring = students, students.wiring
        self._channels = Channels(wiring)
        self._index, self._nodes = wiring.index, wiring.skeleton.nodes
        found = uses(wiring.skeleton, network)
        self._counted = found is not None
        self._products = [
            (self._index[use.node], use.times, [self._channels.add(*size) for size in use.sizes]) for use in found or ()
        ]
        self._weights = self._read_weights(network)
        self._volumes, self._steps = self._volume(), self._order()
        self._inside = self._held_inside()
        entrances = set(wiring.skeleton.coupling.traced.inputs.values())
        self._entrances = [i for i, node in enumerate(self._nodes) if node.name in entrances]

    def __call__(self, metric: str, archs: Sequence[Arch]) -> Tensor | None:
        """`macs`, `params` or `values` (alive at once, at the peak) of `n` archs, `(n,)`, float64; else None."""
        count = {"macs": self._macs, "params": self._params, "values": self._values}.get(metric)
        if count is None or (metric == "macs" and not self._counted):
            return None
        plans = [self.students.plan(tuple(arch)) for arch in archs]
        if not plans:
            return torch.zeros(0, dtype=torch.float64)
        sizes = self._channels.values(np.stack([plan.kept for plan in plans]))
        return torch.from_numpy(count(plans, sizes))

    def _alive(self, plans: Sequence[Plan]) -> NDArray[np.bool_]:
        """Whether each node computes something of its own, `(archs, nodes)`."""
        alive = np.ones((len(plans), len(self._nodes)), dtype=bool)
        for row, plan in zip(alive, plans, strict=True):
            row[[*plan.shortcuts, *plan.gone]] = False
        return alive

    def _macs(self, plans: Sequence[Plan], sizes: Values) -> Values:
        alive, total = self._alive(plans), np.zeros(len(plans))
        for node, area, factors in self._products:
            total += area * sizes[:, factors].prod(1) * alive[:, node]
        return total

    def _params(self, plans: Sequence[Plan], sizes: Values) -> Values:
        alive, total = self._alive(plans), np.zeros(len(plans))
        for factors, readers in self._weights:
            total += sizes[:, factors].prod(1) * alive[:, readers].any(1)
        return total

    def _read_weights(self, network: nn.Module) -> list[tuple[list[int], list[int]]]:
        """Of every parameter that the graph reads: its sizes, and what reads it."""
        wiring, found = self.students.wiring, dict[str, tuple[list[int], frozenset[int]]]()
        shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
        labels = dict(wiring.skeleton.coupling.weights())
        for node in self._nodes:
            name = wiring.skeleton.weights.get(node.name, "") if node.op == "placeholder" else ""
            if name in shapes:
                dims = labels.get(name) or [None] * len(shapes[name])
                sizes = [self._channels.add(dim, full) for dim, full in zip(dims, shapes[name], strict=True)]
                known = found[name][1] if name in found else frozenset[int]()
                found[name] = sizes, self.students.readers[self._index[node]] | known
        return [(sizes, sorted(readers)) for sizes, readers in found.values() if readers]

    def _volume(self) -> dict[int, list[int]]:
        """The sizes of each node that has one tensor."""
        t = self.students.wiring.skeleton.tracker
        return {
            self._index[node]: [self._channels.add(*pair) for pair in zip(t.dims(node), t.shape(node), strict=True)]
            for node in self.students.wiring.dependent
            if isinstance(node.meta.get("val"), Tensor)
        }

    def _held_inside(self) -> dict[int, list[tuple[float, list[int]]]]:
        """What a recurrent node holds while it runs: how many of each part, and its sizes."""
        t, found = self.students.wiring.skeleton.tracker, {}
        for node in filter(is_recurrent, self.students.wiring.dependent):
            found[self._index[node]] = [
                (times, [self._channels.add(t.dim(other, d), t.shape(other)[d]) for other, d in places])
                for times, places in inside(node)
            ]
        return found

    def _order(self) -> list[tuple[int, list[int], str]]:
        """Nodes that depend on the input, their inputs that do, and how they use memory."""
        dependent = self.students.wiring.dependent
        found = []
        for node in self._nodes:
            given = [self._index[n] for n in node.all_input_nodes if n in dependent]
            if node.op == "call_function" and given:
                name = operator_name(node)
                kind = "fresh" if allocates(node) else "view" if name in VIEWS else "over"
                found.append((self._index[node], given, kind))
            elif node.op == "output":
                found.append((self._index[node], given, "end"))
        return found

    def _values(self, plans: Sequence[Plan], sizes: Values) -> Values:
        numbers = {i: sizes[:, factors].prod(1) for i, factors in self._volumes.items()}
        inside = {
            i: np.sum([times * sizes[:, factors].prod(1) for times, factors in parts], 0)
            for i, parts in self._inside.items()
        }
        peaks = np.zeros(len(plans))
        for k, plan in enumerate(plans):
            here = ({i: float(v[k]) for i, v in found.items()} for found in (numbers, inside))
            peaks[k] = self._peak(plan, *here)
        return peaks

    def _peak(self, plan: Plan, volume: Mapping[int, float], inside: Mapping[int, float]) -> float:
        """Most values that live at once.

        A convolution and the like writes to new memory; whatever else works over its first input, unless that is
        needed again; so does the sum of a skip. What is `inside` a node is held while it runs.
        """
        steps = self._rewired(plan)
        last = {g: at for at, (_, given, _) in enumerate(steps) for g in given}
        home = {i: i for i in self._entrances}
        until, held = {i: last.get(i, 0) for i in home}, {i: volume[i] for i in home}
        peak = 0.0
        for at, (i, given, kind) in enumerate(steps[:-1]):  # the last is the output, which makes nothing
            over = next((home[g] for g in given if kind == "over" and until[home[g]] <= at), None)
            where = home[given[0]] if kind == "view" else i if over is None else over
            home[i] = where
            until[where] = max(until.get(where, 0), last.get(i, at))
            if i in inside:
                peak = max(peak, sum(held.values()) + inside[i])
                volume = {i: 0.0, **volume}  # several tensors, each with a node of its own
            if where not in held:
                held[where] = volume.get(i, volume.get(given[0], 0.0))  # the sum of a skip is as large as its term
                peak = max(peak, sum(held.values()))
            held = {w: v for w, v in held.items() if until[w] > at}
        return peak

    def _rewired(self, plan: Plan) -> list[tuple[int, list[int], str]]:
        """The steps of a plan; the sum of a skip is a step of its own, with a negative number."""
        alias: dict[int, int] = {}
        found = []
        for i, given, kind in self._steps:
            if i in plan.gone:
                continue
            if i in plan.shortcuts:
                source = plan.shortcuts[i]
                alias[i] = alias.get(source, source)
                continue
            mine = [alias.get(g, g) for g in given]
            if i in plan.added:
                further = plan.added[i]
                found.append((-i, [mine[0], alias.get(further, further)], "over"))
                mine = [-i, *mine[1:]]
            found.append((i, mine, kind))
        return found

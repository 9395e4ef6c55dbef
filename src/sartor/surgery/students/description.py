"""Compressed networks as sequences of layers, for models that learn from many of them.

One row per node of the graph, in order of execution; a removed layer is a row of type `identity`, so that all networks
of a space have the same rows. Two encodings:

* `paper`: that of Cao, Wang and Kitani, "Learnable embedding space for efficient neural architecture compression"
  (ICLR 2019), as published with it: ten types, kernel, stride, padding, groups, channels in and out as they are, and
  two vectors of 128 entries that mark the offsets of the layers before and after that this one is connected with: 272
  numbers, at most 128 layers. Sums are no layers: every layer adds up its inputs. What is none of its types has none.
* `log`: no greatest number of layers. Numbers are logarithms. An offset d, of the edge to a neighbour, is split between
  the two powers of two around it, so that it can be read off exactly as long as few edges meet; besides, what kinds of
  layers, and how wide ones, lead into this one.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx

from sartor.core.errors import CapabilityError
from sartor.core.records import Arch
from sartor.surgery.analysis.tracker import argument, operator_name, tensor
from sartor.surgery.students.choices import Plan, Students
from sartor.surgery.students.rewiring import KINDS
from sartor.surgery.students.tally import Channels

Encoding: TypeAlias = Literal["log", "paper"]
Rows: TypeAlias = NDArray[np.float32]

PAPER_TYPES = (
    "identity",
    "reshape",
    "concat",
    "shuffle",
    "conv",
    "max_pool",
    "avg_pool",
    "relu",
    "batch_norm",
    "linear",
)
TYPES = (
    "identity",
    "conv",
    "linear",
    "batch_norm",
    "norm",
    "relu",
    "activation",
    "max_pool",
    "avg_pool",
    "sum",
    "concat",
    "reshape",
    "shuffle",
    "other",
)
_OTHERS = {
    "add": "sum",
    "cat": "concat",
    "mean": "avg_pool",
    "permuted": "shuffle",
    "pixel_shuffle": "shuffle",
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "unflatten"), "reshape"),
}
_HIDDEN = frozenset(("getitem", "clone", "contiguous", "detach", "to", "_to_copy", "dropout", "feature_dropout"))
"""What is no layer: its neighbours are connected."""
_OFFSETS = 128
_OCTAVES = 12
_NUMBERS = 6
"""Kernel, stride, padding, groups, channels in and out."""


class Describer:
    """Describes students.

    Args:
        students: The choices.
        encoding: `log` or `paper`.

    Raises:
        CapabilityError: The network has more layers than `paper` can tell apart.
    """

    def __init__(self, students: Students, encoding: Encoding) -> None:
        self.students, self._paper = students, encoding == "paper"
        wiring = students.wiring
        self._types = PAPER_TYPES if self._paper else TYPES
        calls = [n for n in wiring.skeleton.calls if n in wiring.dependent]
        kinds = {wiring.index[n]: _kind(n) for n in calls}
        drop = {"hidden", "sum"} if self._paper else {"hidden"}
        self._rows = [i for i, kind in kinds.items() if kind not in drop]
        self._at = {i: row for row, i in enumerate(self._rows)}
        if self._paper and len(self._rows) > _OFFSETS:
            raise CapabilityError(
                f"the encoding 'paper' describes up to {_OFFSETS} layers, this network has {len(self._rows)}; "
                "use encoding = 'log'"
            )
        self._kind = [self._types.index(k) if (k := kinds[i]) in self._types else len(self._types) for i in self._rows]
        self._given = {
            wiring.index[n]: [wiring.index[g] for g in n.all_input_nodes if g in wiring.dependent] for n in calls
        }
        nodes = wiring.skeleton.nodes
        self._fixed = np.array([_numbers(nodes[i]) for i in self._rows], dtype=np.float32)
        self._area = np.array([_positions(nodes[i]) for i in self._rows], dtype=np.float32)
        self._channels = Channels(wiring)
        self._pairs = np.array([self._inputs(nodes[i]) for i in self._rows]).reshape(-1, 2)
        self._eye = np.eye(len(self._types) + 1, dtype=np.float32)[:, : len(self._types)]
        self._layers = np.isin(self._kind, [self._types.index(t) for t in ("conv", "linear")])

    @property
    def features(self) -> int:
        """Numbers per layer."""
        if self._paper:
            return len(PAPER_TYPES) + _NUMBERS + 2 * _OFFSETS
        return 2 * len(TYPES) + _NUMBERS + 1 + 2 * _OCTAVES + 2

    def __call__(self, arch: Arch) -> Rows:
        """`(layers, features)`."""
        plan = self.students.plan(arch)
        kinds = np.array(self._kind)
        kinds[[self._at[i] for i in (*plan.shortcuts, *plan.gone) if i in self._at]] = 0
        edges, there = self._edges(plan), (kinds != 0)[:, None]
        widths = self._channels.values(plan.kept[None])[0].astype(np.float32)[self._pairs]
        one_hot = self._eye[kinds]
        if self._paper:
            widths *= there & self._layers[:, None]
            return np.concatenate([one_hot, self._fixed * there, widths, _marks(edges, len(kinds))], axis=1)
        numbers = np.log2(1 + np.concatenate([self._fixed * there, widths, self._area[:, None]], axis=1)) / 8
        return np.concatenate([one_hot, numbers, _octaves(edges, one_hot, numbers[:, -2])], axis=1)

    def edges(self, arch: Arch) -> NDArray[np.int64]:
        """Rows from and to which values go, without repeats, `(2, edges)`."""
        return self._edges(self.students.plan(arch))

    def _inputs(self, node: fx.Node) -> tuple[int, int]:
        """Columns of the channels in and out: the last dimension of a linear layer, else the second."""
        x, at = node.all_input_nodes[0], -1 if operator_name(node) == "linear" else 1
        return self._column(x, at), self._column(node, at)

    def _column(self, node: fx.Node, at: int) -> int:
        t, value = self.students.wiring.skeleton.tracker, node.meta.get("val")
        if not isinstance(value, Tensor) or value.dim() < 2:
            return self._channels.add(None, 1)
        return self._channels.add(t.dims(node)[at], t.shape(node)[at])

    def _edges(self, plan: Plan) -> NDArray[np.int64]:
        """Rows from and to which, without repeats, `(2, edges)`."""
        leads: dict[int, list[int]] = {}  # node -> rows whose values it stands for
        edges: list[tuple[int, int]] = []
        for node, given in self._given.items():
            if node in plan.gone:
                continue
            sources = [plan.shortcuts[node]] if node in plan.shortcuts else list(given)
            sources += [plan.added[node]] if node in plan.added else []
            rows = list(dict.fromkeys(row for s in sources for row in leads.get(s, ())))
            if node in self._at:
                edges += [(row, self._at[node]) for row in rows]
                rows = [self._at[node]]
            leads[node] = rows
        return np.array(edges, dtype=np.int64).reshape(-1, 2).T


def _marks(edges: NDArray[np.int64], count: int) -> Rows:
    """Offsets of the layers before and after, as marks, `(count, 256)`."""
    found = np.zeros((count, 2 * _OFFSETS), dtype=np.float32)
    a, b = edges
    found[b, b - a] = found[a, _OFFSETS + b - a] = 1
    return found


def _octaves(edges: NDArray[np.int64], types: Rows, widths: Rows) -> Rows:
    """Offsets between powers of two; types and mean width of what leads in; the number of edges in."""
    count, (a, b) = len(types), edges
    marks = np.zeros((count, 2 * _OCTAVES), dtype=np.float32)
    offsets = np.minimum(np.log2(np.maximum(b - a, 1)), _OCTAVES - 1.001)
    octave = offsets.astype(np.int64)
    part = offsets - octave
    for rows, start in ((b, 0), (a, _OCTAVES)):
        np.add.at(marks, (rows, start + octave), 1 - part)
        np.add.at(marks, (rows, start + octave + 1), part)
    leads = np.zeros((count, count), dtype=np.float32)
    np.add.at(leads, (b, a), 1)
    many = leads.sum(1, keepdims=True)
    return np.concatenate([marks, leads @ types, leads @ widths[:, None] / np.maximum(many, 1), many / 4], axis=1)


def _kind(node: fx.Node) -> str:
    name = operator_name(node)
    if name in _HIDDEN or not isinstance(node.meta.get("val"), Tensor):
        return "hidden"
    return KINDS.get(name) or _OTHERS.get(name, "other")


def _numbers(node: fx.Node) -> tuple[float, float, float, float]:
    """Kernel, stride, padding and groups; zeros where a layer has none."""
    name = operator_name(node)
    if name.startswith("conv"):
        kernel = tensor(node, 1).meta["val"].shape[2]
        groups = argument(node, 6, "groups", 1)
        padding = argument(node, 4, "padding", 0)
        padding = (int(kernel) - 1) // 2 if padding == "same" else padding
        return float(kernel), _first(argument(node, 3, "stride", 1)), _first(padding), float(groups)
    if "pool" in name and not name.startswith("adaptive"):
        kernel = argument(node, 1, "kernel_size", 1)
        stride = argument(node, 2, "stride", ()) or kernel
        return _first(kernel), _first(stride), _first(argument(node, 3, "padding", 0)), 0.0
    return 0.0, 0.0, 0.0, 0.0


def _first(value: Any) -> float:
    value = value[0] if isinstance(value, (list, tuple)) and value else value
    return float(value) if isinstance(value, (int, float)) else 0.0


def _positions(node: fx.Node) -> float:
    """Height times width of the output."""
    shape = node.meta["val"].shape
    return float(np.prod([int(n) for n in shape[2:]])) if len(shape) > 2 else 1.0

"""Recurrent layers and cells: LSTM, GRU and plain ones.

All layers and directions of one `nn.LSTM` share its `hidden_size`, and their states stand in one tensor: a hidden unit
is the same index everywhere, and goes from all of them, and from all gates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, fx

from sartor.surgery.analysis.operators.rule import Rule, serve
from sartor.surgery.analysis.tracker import Birth, Dims, Tracker, blame, operator_name, tensor
from sartor.surgery.analysis.units import Dim, stack

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
"""Operator -> how many rows of its weights one hidden unit has."""
_CELLS = {f"{name}_cell": gates for name, gates in GATES.items()}


class Hidden(NamedTuple):
    """Labels of one layer in one direction: of what it gives, and of the cells behind that (the same, but with
    projections).
    """

    out: Dim
    cells: Dim


def is_recurrent(node: fx.Node) -> bool:
    """Whether it is a recurrent operator, which writes into memory of its own; not on packed sequences."""
    name = operator_name(node)
    return name in _CELLS or (name in GATES and getattr(node.target, "_overloadname", "") != "data")


def inside(node: fx.Node) -> list[tuple[float, list[tuple[fx.Node, int]]]]:
    """What a recurrent operator holds while it runs: for each part how many, and the dimensions of one.

    torch computes the gates of all steps of a layer first, and keeps what every step gives until it is put together
    (ATen's RNN.cpp); both directions of a layer are alive together, layers follow each other and read what the one
    before gave.
    """
    x, cell = tensor(node, 0), operator_name(node) in _CELLS
    weights: Any = [tensor(node, 2)] if cell else node.args[2]
    ways = 1 if cell else 1 + bool(node.args[7])
    gates = [*((x, d) for d in range(x.meta["val"].dim() - 1)), (weights[0], 0)]
    value = node.meta["val"]
    out = node if isinstance(value, Tensor) else next((n for n in node.users if n.args[1] == 0), None)
    layers = 0 if cell else int(node.args[4])  # type: ignore[arg-type]
    if out is None or not layers:
        return [(float(ways), gates)]
    return [(float(ways), gates), (2.0 + (layers > 1), [(out, d) for d in range(out.meta["val"].dim())])]


def recurrent(t: Tracker, node: fx.Node) -> list[Dims]:
    """Inputs `(batch, time, c)`, states `(layers * directions, batch, h)`."""
    x, gates = tensor(node, 0), GATES[operator_name(node)]
    weights: list[Any] = list(node.args[2])  # type: ignore[arg-type]
    count, ways = int(node.args[4]), 1 + bool(node.args[7])  # type: ignore[arg-type]
    each = len(weights) // (count * ways)
    last, dims = len(t.shape(x)) - 1, t.dims(x)
    below, hidden = dims[last], Hidden(None, None)
    for layer in range(count):
        parts = [weights[(layer * ways + way) * each :][:each] for way in range(ways)]
        for way, part in enumerate(parts):
            found = _layer(t, node, part, below, gates)
            hidden = _alike(t, node, hidden, found) if layer or way else found
        below = stack([hidden.out] * ways, [t.shape(weights[1])[1]] * ways)
    batch = dims[0 if node.args[8] else 1]
    states = _states(t, node, hidden, batch)
    dims[last] = below
    return [dims, *([None, batch, units] for units in states)]


def _states(t: Tracker, node: fx.Node, hidden: Hidden, batch: Dim) -> list[Dim]:
    """The labels of what the layers start from, and end with."""
    given: Any = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
    for state, units in zip(given, hidden, strict=False):
        t.fix(state, [0], f"layers of {blame(node)}")
        t.tie(state, 1, batch)
        t.tie(state, 2, units, f"states of {blame(node)}")
    return list(hidden[: len(given)])


def _alike(t: Tracker, node: fx.Node, one: Hidden, other: Hidden) -> Hidden:
    why = f"layers and directions of {blame(node)}"
    return Hidden(t.units.equal(one.out, other.out, why), t.units.equal(one.cells, other.cells, why))


def _layer(t: Tracker, node: fx.Node, weights: Sequence[fx.Node], below: Dim, gates: int) -> Hidden:
    """The hidden units of one layer in one direction."""
    reads, repeats, *rest = weights
    t.tie(reads, 1, below)
    size = t.shape(reads)[0] // gates
    parts = t.units.split(t.dim(reads, 0), (gates, size), f"gates of {blame(node)}")
    t.units.pin(parts[0], f"gates of {blame(node)}")
    rows = t.units.merge([None, parts[1]], (gates, size))
    projection = next((w for w in rest if len(t.shape(w)) == 2), None)
    for weight in (repeats, *(w for w in rest if w is not projection)):
        t.tie(weight, 0, rows)
    cells = parts[1]
    out = t.tie(repeats, 1, cells) if projection is None else _projected(t, node, repeats, projection, cells)
    if cells is not None:
        t.births.append(Birth(node, reads, cells, together=True))
    return Hidden(out, cells if projection is not None else out)


def _projected(t: Tracker, node: fx.Node, repeats: fx.Node, projection: fx.Node, cells: Dim) -> Dim:
    """The units of what is given on. Each goes with a cell of its own, so that there are always fewer of them than of
    cells: torch tells projections by that.
    """
    t.tie(projection, 1, cells)
    count = t.shape(projection)[0]
    out = t.tie(projection, 0, None if cells is None else cells[:count], f"projections of {blame(node)}")
    return t.tie(repeats, 1, out)


def cell(t: Tracker, node: fx.Node) -> Any:
    """One step: inputs `(batch, c)`, states `(batch, h)`."""
    x, gates = tensor(node, 0), _CELLS[operator_name(node)]
    given: Any = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
    weights = [w for w in (*node.args[2:], *node.kwargs.values()) if isinstance(w, fx.Node)]
    units = _layer(t, node, weights, t.dim(x, 1), gates).out
    batch = t.dim(x, 0)
    for state in given:
        t.tie(state, 0, batch)
        t.tie(state, 1, units, f"states of {blame(node)}")
    found: list[Dims] = [[batch, units] for _ in given]
    return found[0] if isinstance(node.meta["val"], Tensor) else found


def mixes_cell(node: fx.Node) -> Sequence[tuple[fx.Node, tuple[int, ...]]]:
    """Inputs and the first state are multiplied and summed up."""
    state: Any = node.args[1][0] if isinstance(node.args[1], (list, tuple)) else node.args[1]
    return [(tensor(node, 0), (1,)), (state, (1,))]


RULES = {
    **serve(Rule(recurrent), "lstm.input gru.input rnn_tanh.input rnn_relu.input"),  # not `data`: packed sequences
    **serve(Rule(cell, mixes=mixes_cell), " ".join(_CELLS)),
}

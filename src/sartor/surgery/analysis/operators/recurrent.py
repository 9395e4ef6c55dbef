"""Recurrent layers: LSTM, GRU and plain ones."""

from __future__ import annotations

from typing import Any

from torch import fx

from sartor.surgery.analysis.operators.rule import Rule
from sartor.surgery.analysis.tracker import Birth, Dims, Tracker, blame, operator_name, tensor
from sartor.surgery.analysis.units import Dim, stack

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
"""Operator -> how many rows of its weights one hidden unit has."""


def recurrent(t: Tracker, node: fx.Node) -> list[Dims]:
    """Inputs `(batch, time, c)`, states `(layers * directions, batch, h)`: hidden units go from all gates together."""
    x, gates = tensor(node, 0), GATES[operator_name(node)]
    weights: list[Any] = list(node.args[2])  # type: ignore[arg-type]
    states: list[Any] = list(node.args[1]) if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
    has_biases, count, both_ways = bool(node.args[3]), int(node.args[4]), bool(node.args[7])  # type: ignore[arg-type]
    ways = 1 + both_ways
    each = len(weights) // (count * ways)
    hidden = t.shape(weights[1])[1]
    if each != 2 + 2 * has_biases:  # projections
        return _kept(t, node, [x, *states, *weights])
    last, below, dims = len(t.shape(x)) - 1, t.dim(x, len(t.shape(x)) - 1), t.dims(x)
    found: list[Dim] = []
    for layer in range(count):
        parts = [weights[(layer * ways + way) * each :][:each] for way in range(ways)]
        found = [_layer(t, node, part, below, (gates, hidden)) for part in parts]
        below = stack(found, [hidden] * ways)
        if count > 1 or ways > 1:  # the states of all layers stand in one tensor
            for units in found:
                t.units.pin(units, f"layers share the states of {blame(node)}")
    batch = dims[0 if node.args[8] else 1]
    for state in states:
        t.tie(state, 1, batch)
        t.tie(state, -1, found[0] if count * ways == 1 else None)
    dims[last] = below
    state_dims: Dims = [None, batch, found[0] if count * ways == 1 else None]
    return [dims, *[list(state_dims) for _ in states]]


def _layer(t: Tracker, node: fx.Node, weights: list[fx.Node], below: Dim, sizes: tuple[int, int]) -> Dim:
    """The hidden units of one layer in one direction."""
    reads, repeats, *biases = weights
    t.tie(reads, 1, below)
    parts = t.units.split(t.dim(reads, 0), sizes, f"gates of {blame(node)}")
    t.units.pin(parts[0], f"gates of {blame(node)}")
    rows = t.units.merge([None, parts[1]], sizes)
    for weight in (repeats, *biases):
        t.tie(weight, 0, rows)
    units = t.tie(repeats, 1, parts[1])
    if units is not None:
        t.births.append(Birth(node, reads, units))
    return units


def _kept(t: Tracker, node: fx.Node, given: list[fx.Node]) -> list[Dims]:
    for value in given:
        t.fix(value, None, f"the projections of {blame(node)} have no rule")
    return [[None] * v.dim() for v in node.meta["val"]]


RULES = dict.fromkeys(GATES, Rule(recurrent))

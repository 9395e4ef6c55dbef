"""Recurrent layers of a network that was cut: what they remember of their sizes, and their place in a graph."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from sartor.surgery.analysis.operators.recurrent import GATES
from sartor.surgery.analysis.skeleton import Skeleton
from sartor.surgery.analysis.trace import place
from sartor.surgery.analysis.tracker import operator_name

_KINDS = (nn.LSTM, nn.GRU, nn.RNN)


def renumber_layer(module: nn.RNNBase, _sizes: dict[int, int]) -> None:
    """Set the sizes of an `nn.LSTM`, `nn.GRU` or `nn.RNN` to those of its weights."""
    weights = dict(module.named_parameters(recurse=False))
    rows, module.input_size = weights["weight_ih_l0"].shape
    module.hidden_size = rows // GATES[module.mode.lower()]
    if module.proj_size:
        module.proj_size = len(weights["weight_hr_l0"])


def renumber_cell(module: nn.RNNCellBase, _sizes: dict[int, int]) -> None:
    """Set the sizes of an `nn.LSTMCell`, `nn.GRUCell` or `nn.RNNCell` to those of its weights."""
    module.input_size, module.hidden_size = module.weight_ih.shape[1], module.weight_hh.shape[1]


def layers(skeleton: Skeleton, modules: Mapping[str, nn.Module]) -> dict[fx.Node, str]:
    """Nodes that are what a recurrent layer of the network does, on its own weights, and the layer's name."""
    calls = [(node, place(node)) for node in skeleton.calls if operator_name(node) in GATES]
    names = [name for _, name in calls]
    return {n: name for n, name in calls if names.count(name) == 1 and _is_own(skeleton, n, name, modules.get(name))}


def _is_own(skeleton: Skeleton, node: fx.Node, name: str, module: nn.Module | None) -> bool:
    weights: Any = node.args[2]
    used = [skeleton.weights.get(w.name, "") for w in weights]
    return type(module) in _KINDS and used == [f"{name}.{leaf}" for leaf, _ in _named(module)]


def _named(module: Any) -> list[tuple[str, nn.Parameter]]:
    return list(module.named_parameters(recurse=False))


def states(node: fx.Node, name: str) -> list[fx.Node]:
    """What the layer starts from; nothing if it makes zeros itself."""
    given: Any = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
    made = all(operator_name(state) == "zeros" and place(state) == name for state in given)
    return [] if made else list(given)


def called(graph: fx.Graph, name: str, x: Any, given: list[Any], *, lstm: bool) -> tuple[fx.Node, ...]:
    """Call the layer in a graph: what it gives, one node for each tensor, as its operator does."""
    start = () if not given else (tuple(given),) if lstm else (given[0],)
    result = graph.call_module(name, (x, *start))
    out, last = (graph.call_function(operator.getitem, (result, i)) for i in (0, 1))
    return (out, *(graph.call_function(operator.getitem, (last, i)) for i in (0, 1))) if lstm else (out, last)

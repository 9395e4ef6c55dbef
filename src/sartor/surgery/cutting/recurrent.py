"""Recurrent layers of a network that was cut: what they remember of their sizes, read off their weights."""

from __future__ import annotations

from torch import nn

_GATES = {"LSTM": 4, "GRU": 3}


def renumber_layer(module: nn.RNNBase, _sizes: dict[int, int]) -> None:
    """Set the sizes of an `nn.LSTM`, `nn.GRU` or `nn.RNN`."""
    weights = dict(module.named_parameters(recurse=False))
    rows, module.input_size = weights["weight_ih_l0"].shape
    module.hidden_size = rows // _GATES.get(module.mode, 1)
    if module.proj_size:
        module.proj_size = len(weights["weight_hr_l0"])


def renumber_cell(module: nn.RNNCellBase, _sizes: dict[int, int]) -> None:
    """Set the sizes of an `nn.LSTMCell`, `nn.GRUCell` or `nn.RNNCell`."""
    module.input_size, module.hidden_size = module.weight_ih.shape[1], module.weight_hh.shape[1]

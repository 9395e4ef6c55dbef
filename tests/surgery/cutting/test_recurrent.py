"""What recurrent layers remember of their sizes; how they are cut is tried where their rule is."""

from __future__ import annotations

import pytest
from torch import nn

from sartor.surgery.cutting.recurrent import renumber_cell, renumber_layer


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_sizes_of_layers_are_those_of_their_weights(kind):
    layer, smaller = kind(8, 6, 2, bidirectional=True), kind(5, 4, 2, bidirectional=True)
    layer._parameters = smaller._parameters
    renumber_layer(layer, {})
    assert (layer.input_size, layer.hidden_size, layer.proj_size) == (5, 4, 0)
    assert layer.extra_repr() == smaller.extra_repr()


def test_sizes_of_projections():
    layer = nn.LSTM(8, 6, proj_size=3)
    layer._parameters = nn.LSTM(8, 5, proj_size=2)._parameters
    renumber_layer(layer, {})
    assert (layer.input_size, layer.hidden_size, layer.proj_size) == (8, 5, 2)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_sizes_of_cells_are_those_of_their_weights(kind):
    cell = kind(8, 6)
    cell._parameters = kind(5, 4)._parameters
    renumber_cell(cell, {})
    assert (cell.input_size, cell.hidden_size) == (5, 4)

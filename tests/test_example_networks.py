"""The networks of the examples take what their tasks give."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from sartor.core import trees
from sartor.core.rng import global_seed

FILE = Path(__file__).parents[1] / "examples" / "networks_other.py"
SHAPES = {
    "spoken_digits": (((1, 40, 101),), (10,)),
    "water": (((7, 64, 64), (1, 64, 64)), (2, 64, 64)),
    "widths_accuracy": (((5,),), (1,)),
    "cifar_backbone": (((3, 32, 32),), {"middle": (32, 16, 16), "last": (64, 8, 8), "logits": (10,)}),
}


@pytest.mark.parametrize("name", SHAPES)
def test_inputs_and_outputs(name):
    spec = importlib.util.spec_from_file_location("networks_other", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    inputs, outputs = SHAPES[name]
    with global_seed(0):
        network = getattr(module, name)().eval()
        given = tuple(torch.randn(3, *shape) for shape in inputs)
    with torch.no_grad():
        found = trees.call(network, given)
        alone = trees.call(network, trees.rows(given, slice(1, 2)))
    if isinstance(outputs, dict):
        assert trees.shapes(found) == {k: (3, *v) for k, v in outputs.items()}
    else:
        assert trees.shapes(found) == (3, *outputs)
    for whole, part in zip(trees.leaves(found), trees.leaves(alone), strict=True):
        torch.testing.assert_close(part, whole[1:2], rtol=1e-4, atol=1e-4)

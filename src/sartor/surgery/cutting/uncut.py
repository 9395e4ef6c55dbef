"""What is made of a network gives, with nothing cut, what the network gives; or the network is refused."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from sartor.core import copies, foreign, trees
from sartor.core.errors import CapabilityError, ConfigError
from sartor.core.rng import global_seed
from sartor.core.trees import Inputs, Tree
from sartor.surgery.analysis.trace import BATCH
from sartor.surgery.cutting.agreement import agree
from sartor.surgery.cutting.checked import drawn


class Asked(NamedTuple):
    """What a network makes of random inputs.

    Attributes:
        name: Of its class.
        inputs: One example, or as many as are traced where it does not take one.
        output: In evaluation.
    """

    name: str
    inputs: Inputs
    output: Tree


def asked(network: nn.Module, example: Inputs) -> Asked:
    """Ask a network before anything is done to a copy of it; itself, it stays as it is.

    Args:
        network: As its user has it.
        example: One example, each input `(1, ...)`; whole numbers are taken from it.

    Raises:
        ConfigError: It runs neither on one example nor on several.
    """
    twin, name, wrong = copies.faithful(network).eval(), type(network).__name__, Exception()
    for examples in (1, BATCH):
        inputs = drawn(example, examples)
        try:
            with global_seed(0), torch.no_grad():
                return Asked(name, inputs, trees.call(twin, inputs))
        except Exception as error:  # noqa: BLE001 - the network's own code
            wrong = error
    raise ConfigError(
        f"{name} does not run on inputs of the shapes {trees.shapes(inputs)}: "
        f"{foreign.first_line(wrong)}; give the shape that it was made for, and an example, if not every number is "
        "allowed"
    ) from wrong


def check_uncut(built: nn.Module, told: Asked) -> None:
    """See to it that what is built of a network is the network.

    Args:
        built: Uncut; it is run, and nobody else's.
        told: What the network itself gives.

    Raises:
        CapabilityError: It gives something else.
    """
    if not agree(partial(trees.call, built.eval()), lambda _: told.output, told.inputs):
        raise CapabilityError(
            f"{told.name} cannot be followed: what is made of it gives something else than the "
            "original although nothing is cut; a forward that depends on more than its inputs (the time, random "
            "numbers of its own, what it has seen before) is not supported"
        )

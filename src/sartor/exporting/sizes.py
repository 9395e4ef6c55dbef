"""Which sizes of a network's inputs a file leaves open, and inputs of other sizes to try it with."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from sartor.core import trees
from sartor.core.errors import ConfigError, TargetError
from sartor.core.trees import Inputs
from sartor.exporting.agreement import drawn

BATCH = "batch"
"""The symbol of the dimension that all inputs share."""

OTHERS = 3
"""A batch that is neither one example nor the two that are traced."""

Axes: TypeAlias = Sequence[Mapping[int, str]]
"""Per input, in order: axis -> the symbol of its size."""

WORDS: Mapping[str, tuple[int, int]] = {"height": (4, 2), "width": (4, 3), "length": (2, 1)}
"""A size in words -> how many dimensions an input that has it has, and which of them it is."""

TRIED = ((2, 3), (2, 2), (0.5, 0.5), (1.25, 1.5))
"""Factors of two open axes of an input, one after another, of the sizes that a file is tried with."""


class NarrowError(TargetError):
    """A file takes fewer batches or sizes than wished, or computes something else on them."""


def axes(example: Inputs, names: Sequence[str], dynamic: Sequence[str]) -> Axes:
    """Where the sizes called `dynamic` are, the batch not among them; a word means all inputs that have such a size.

    It is one size for inputs that are alike in the example, and one of each input else.

    Args:
        example: What a network is called with, each `(batch, ...)`.
        names: Of its inputs, in the order of its tensors.
        dynamic: See `sartor.core.records.ExportSettings`.

    Raises:
        ConfigError: There is no such size; says which there are.
    """
    found: list[dict[int, str]] = [{} for _ in names]
    for wish in dynamic:
        places = _places(wish, names, trees.leaves(example))
        if not places:
            raise ConfigError(_unknown(wish, names, trees.leaves(example)))
        sizes = {trees.leaves(example)[number].shape[axis] for number, axis in places}
        for number, axis in places:  # one symbol is one size
            symbol = wish if len(sizes) == 1 else f"{names[number]}.{wish}"
            found[number].setdefault(axis, symbol.replace(".", "_"))
    return found


def batched(open_: Axes, example: Inputs) -> Axes:
    """The same with the batch."""
    return [{0: BATCH, **found} if t.dim() else {} for found, t in zip(open_, trees.leaves(example), strict=True)]


def others(example: Inputs, open_: Axes, rng: torch.Generator) -> Iterator[Inputs]:
    """Random inputs of other sizes than the example's, in batches of three; nothing if no size is open.

    Whoever names a size wants all others: larger and smaller ones, such as are multiples of what they were and such as
    are not, height and width different and alike. What a network itself cannot take is no fault of a file.
    """
    for factors in TRIED:
        yield from _sized(example, open_, rng, factors, 0)


def close(example: Inputs, open_: Axes, rng: torch.Generator) -> Iterator[Inputs]:
    """The same of sizes larger by one: a network of one size may take them too, as strides round them off."""
    yield from _sized(example, open_, rng, (1, 1), 1)


def _sized(example: Inputs, open_: Axes, rng: torch.Generator, factors: Sequence[float], more: int) -> Iterator[Inputs]:
    symbols = list(dict.fromkeys(symbol for found in open_ for symbol in found.values()))
    factor = {symbol: factors[i % 2] for i, symbol in enumerate(symbols)}
    sizes = [
        tuple(max(1, int(n * factor[found[axis]]) + more) if axis in found else n for axis, n in enumerate(t.shape))
        for t, found in zip(trees.leaves(example), open_, strict=True)
    ]
    if sizes != [tuple(t.shape) for t in trees.leaves(example)]:
        yield drawn(example, rng, OTHERS, sizes)


def _places(wish: str, names: Sequence[str], tensors: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Number of the input, and axis."""
    if wish in WORDS:
        dims, axis = WORDS[wish]
        return [(i, axis) for i, t in enumerate(tensors) if t.dim() == dims]
    name, _, place = wish.rpartition(".")
    return [
        (i, axis) for i, t in enumerate(tensors) if names[i] == name and (axis := _axis(place, t)) in range(1, t.dim())
    ]


def _axis(place: str, tensor: Tensor) -> int:
    if place.isdecimal():
        return int(place)
    dims, axis = WORDS.get(place, (-1, 0))
    return axis if dims == tensor.dim() else 0


def _unknown(wish: str, names: Sequence[str], tensors: Sequence[Tensor]) -> str:
    known = [word for word, (dims, _) in WORDS.items() if any(t.dim() == dims for t in tensors)]
    known += [f"{name}.{axis}" for name, t in zip(names, tensors, strict=True) for axis in range(1, t.dim())]
    near = difflib.get_close_matches(wish, known, n=1)
    inputs = ", ".join(f"{name} {tuple(t.shape)}" for name, t in zip(names, tensors, strict=True))
    hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
    return f"export.dynamic: the inputs {inputs} have no size {wish!r} beside the batch; {hint}"

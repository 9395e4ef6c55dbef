"""Inputs, outputs and targets made of tensors: one tensor, or tuples, lists, mappings and dataclasses of them, nested.

A network is called with one tensor, with several in a tuple (by position) or in a dict (by name). What it gives back,
and what a task compares it with, may be any tree. Everything else in a tree (numbers, strings, None) is left as it is.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from sartor.core.errors import DataError

Inputs: TypeAlias = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
"""What a network is called with; the first dimension of every tensor is the batch."""

Tree: TypeAlias = Any
"""Anything made of tensors."""


def call(module: nn.Module, inputs: Inputs) -> Tree:
    """`module` on `inputs`: a tuple is spread over its arguments, a dict over its named ones."""
    if isinstance(inputs, Tensor):
        return module(inputs)
    return module(**inputs) if isinstance(inputs, Mapping) else module(*inputs)


def device_of(module: nn.Module, inputs: Inputs = ()) -> torch.device:
    """Where a network computes: the device of its first parameter or buffer, else that of its inputs, else the CPU."""
    state = chain(module.parameters(), module.buffers(), leaves(inputs))
    return next((tensor.device for tensor in state), torch.device("cpu"))


def single(inputs: Inputs, who: object) -> Tensor:
    """The one tensor that `who` takes.

    Raises:
        DataError: The inputs are several.
    """
    if not isinstance(inputs, Tensor):
        raise DataError(
            f"{type(who).__name__} takes one tensor, and the task gives {shapes(inputs)}; take a space for "
            "several inputs, such as `widths` of a network of your own"
        )
    return inputs


def arguments(inputs: Inputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """The same as positional and named arguments, for `torch.export` and its like."""
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    return ((), dict(inputs)) if isinstance(inputs, Mapping) else (tuple(inputs), {})


def named(tree: Tree, alone: str = "value") -> dict[str, Tensor]:
    """Name -> tensor, in order: `alone` for a single one, the keys of mappings and dataclasses, `alone_0`, ... else.

    Nested names are joined by dots.
    """
    if isinstance(tree, Tensor):
        return {alone: tree}
    return dict(_named(tree, "", alone))


def _named(tree: Tree, path: str, alone: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        yield path, tree
    for key, value in children(tree) or ():
        name = f"{alone}_{key}" if isinstance(key, int) and not path else str(key)
        yield from _named(value, f"{path}.{name}" if path else name, alone)


def leaves(tree: Tree) -> list[Tensor]:
    """All tensors, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    return [leaf for _, value in children(tree) or () for leaf in leaves(value)]


def mapped(function: Callable[[Tensor], Any], tree: Tree) -> Tree:
    """The same tree with `function` of every tensor in its place."""
    if isinstance(tree, Tensor):
        return function(tree)
    inside = children(tree)
    return tree if inside is None else _rebuilt(tree, [(k, mapped(function, v)) for k, v in inside])


def combined(function: Callable[[list[Tensor]], Any], trees: Sequence[Tree]) -> Tree:
    """One tree out of several of one structure: `function` of the tensors at every place.

    Raises:
        DataError: The structures differ.
    """
    first = trees[0]
    if isinstance(first, Tensor):
        if not all(isinstance(tree, Tensor) for tree in trees):
            kinds = [type(t).__name__ for t in trees]
            raise DataError(f"trees of tensors differ: {kinds} stand at one place; give each the same structure")
        return function(list(trees))
    inside = [children(tree) for tree in trees]
    if inside[0] is None:
        return first
    keys = [None if c is None else [k for k, _ in c] for c in inside]
    if any(k != keys[0] for k in keys):
        raise DataError(f"trees of tensors differ: their parts are called {keys[0]} and {keys[1:]}; give each the same")
    parts = zip(*([v for _, v in c or ()] for c in inside), strict=True)
    return _rebuilt(first, [(k, combined(function, p)) for k, p in zip(keys[0] or (), parts, strict=True)])


def joined(trees: Sequence[Tree]) -> Tree:
    """Batches one after another: every tensor `(n_i, ...)` becomes `(sum n_i, ...)`."""
    return combined(torch.cat, trees)


def rows(tree: Tree, index: Any) -> Tree:
    """Some examples of a batch: every tensor `(batch, ...)` at `index` (a slice, or indices)."""
    return mapped(lambda t: t[index], tree)


def parts(tree: Tree, count: int) -> list[Tree]:
    """A batch cut into `count` parts of nearly equal size."""
    edges = torch.arange(size(tree)).tensor_split(count)
    return [rows(tree, slice(int(e[0]), int(e[-1]) + 1) if len(e) else slice(0, 0)) for e in edges]


def to(tree: Tree, device: torch.device | str) -> Tree:
    """The tree on a device."""
    return mapped(lambda t: t.to(device, non_blocking=True), tree)


def size(tree: Tree) -> int:
    """Examples in a batch: the length of its first tensor.

    Raises:
        DataError: There is no tensor.
    """
    found = leaves(tree)
    if not found:
        raise DataError(f"a batch needs at least one tensor, got {type(tree).__name__}")
    return len(found[0])


def shapes(tree: Tree) -> Any:
    """For messages: the shape of a tensor, or the tree with shapes in the place of tensors."""
    return mapped(lambda t: tuple(t.shape), tree)


def children(tree: Tree) -> list[tuple[Any, Any]] | None:
    """Keys and values of a node; None for what is no node."""
    if isinstance(tree, Mapping):
        return list(tree.items())
    if isinstance(tree, tuple | list):
        return list(enumerate(tree))
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return [(f.name, getattr(tree, f.name)) for f in dataclasses.fields(tree)]
    return None


def _rebuilt(tree: Tree, items: list[tuple[Any, Any]]) -> Tree:
    if isinstance(tree, Mapping):
        made: Any = copy.copy(tree)  # keeps the class, and what it holds beside its items
        for key, value in items:
            made[key] = value
        return made
    if isinstance(tree, tuple | list):
        values = [value for _, value in items]
        return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)
    return dataclasses.replace(tree, **dict(items))

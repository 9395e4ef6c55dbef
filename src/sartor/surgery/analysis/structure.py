"""How a traced network is called and what it gives back: names of its arguments, and trees without their tensors."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from sartor.core import trees
from sartor.core.errors import CapabilityError, DataError
from sartor.core.trees import Inputs, Tree

_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device)
Step: TypeAlias = tuple[str, Any]
"""`("item", key)` or `("attribute", name)`."""


def arguments(network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """Argument of `forward` -> its tensor, in the order of the signature; `*args` and such are numbered.

    What does not fit the signature gets numbers, too: calling the network tells what is wrong with it.
    """
    args, kwargs = trees.arguments(inputs)
    try:
        signature = inspect.signature(network.forward)
        bound = signature.bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return {**{f"input_{i}": value for i, value in enumerate(args)}, **kwargs}
    found: dict[str, Tensor] = {}
    for name, value in bound.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            found |= {f"{name}_{i}": entry for i, entry in enumerate(value)}
        elif kind is inspect.Parameter.VAR_KEYWORD:
            found |= value
        else:
            found[name] = value
    return found


def feed(names: Sequence[str], inputs: Inputs, network: str = "the network") -> dict[str, Tensor]:
    """Argument -> tensor, for arguments in the order of the signature: by name from a dict, by place from a tuple.

    Raises:
        DataError: Some are missing or too many, or they are batches of different sizes; names the input.
    """
    if isinstance(inputs, Mapping):
        if inputs.keys() != set(names):
            raise DataError(f"{network} was traced with the inputs {', '.join(names)}; it is given {', '.join(inputs)}")
        found = {name: inputs[name] for name in names}
    else:
        given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
        if len(given) != len(names):
            raise DataError(f"{network} was traced with the inputs {', '.join(names)}; it is given {len(given)}")
        found = dict(zip(names, given, strict=True))
    same_batch(found)
    return found


def same_batch(inputs: Mapping[str, Tensor]) -> None:
    """Check that all are batches of one size.

    Raises:
        DataError: They are not; names the input.
    """
    sizes = {name: tuple(value.shape[:1]) for name, value in inputs.items()}
    first = next(iter(sizes), "")
    for name, size in sizes.items():
        if not size or size != sizes[first]:
            raise DataError(
                f"input {name!r} has the shape {tuple(inputs[name].shape)}, input {first!r} "
                f"{tuple(inputs[first].shape)}; the first dimension of each is the batch, as large in all of them"
            )


def outline(tree: Tree, owner: str) -> Tree:
    """The tree with tensors without values.

    Raises:
        CapabilityError: It holds something that cannot be given back another time, a cache, say.
    """
    for path, value in _strange(tree, ""):
        raise CapabilityError(
            f"{owner} gives a {type(value).__name__}{f' as {path}' if path else ''}; outputs are tensors, and tuples, "
            "lists, mappings and dataclasses of them: wrap the network so that it gives those"
        )
    try:
        return trees.mapped(lambda t: torch.empty(t.shape, dtype=t.dtype, device="meta"), tree)
    except Exception as error:  # a container that takes certain tensors only, a packed sequence say
        raise CapabilityError(
            f"{owner} gives a container that cannot be made anew ({' '.join(str(error).split())[:100]}); outputs are "
            "tensors, and plain containers of them: wrap the network so that it gives those"
        ) from error


def _strange(tree: Tree, path: str) -> Iterator[tuple[str, Any]]:
    """What is neither made of tensors nor plain, and where."""
    children = trees.children(tree)
    for key, value in children or ():
        yield from _strange(value, f"{path}.{key}" if path else str(key))
    if children is None and tree is not None and not isinstance(tree, (Tensor, *_PLAIN)):
        yield path, tree


def filled(outline: Tree, tensors: Sequence[Any]) -> Tree:
    """The tree with these tensors, in order."""
    left = iter(tensors)
    return trees.mapped(lambda _: next(left), outline)


def paths(tree: Tree) -> list[tuple[Step, ...]]:
    """How to get at every tensor, in order."""
    if isinstance(tree, Tensor):
        return [()]
    item = isinstance(tree, (Mapping, tuple, list))
    return [
        ((("item" if item else "attribute"), key), *rest)
        for key, value in trees.children(tree) or ()
        for rest in paths(value)
    ]

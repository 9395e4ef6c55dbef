"""Trees of tensors in words: JSON that keeps what a list of tensors, which is all that a file of a network has, loses.

A file names no classes (nothing in it is ever imported or called). What was a dataclass or a named tuple comes back as
one of the same name and fields, what was a mapping with attributes as a `Record`.
"""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from sartor.core.errors import TargetError
from sartor.core.trees import Tree


class Record(dict[str, Any]):
    """A dict whose values are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(f"there is no output {name!r}; there are {', '.join(map(str, self))}") from error


def plain(tree: Tree) -> Tree:
    """The tree of dicts, tuples and lists only, with fields of dataclasses as keys: what `torch.export` can hold.

    Strings become None: `torch.export` writes files with them that it cannot read.

    Raises:
        TargetError: see `encoded`.
    """
    kind, items = _taken_apart(tree)
    if kind in {"tensor", "value"}:
        return None if isinstance(tree, str) else tree
    if kind in {"dict", "record", "dataclass"}:
        return {key: plain(value) for key, value in items}
    values = [plain(value) for _, value in items]
    return values if kind == "list" else tuple(values)


def names(tree: Tree, alone: str, path: str = "") -> list[str]:
    """One name per tensor, in order: keys and fields, `alone_0`, ... of a tuple or list, nested ones joined by dots.

    Args:
        tree: An output.
        alone: The name of the only tensor.
        path: The name of what `tree` is a part of.
    """
    kind, items = _taken_apart(tree)
    if kind == "tensor":
        return [path or alone]
    found: list[str] = []
    for key, value in items:
        name = f"{alone}_{key}" if isinstance(key, int) and not path else str(key)
        found += names(value, alone, f"{path}.{name}" if path else name)
    return found


def encoded(tree: Tree) -> list[Any]:
    """The tree as plain data for JSON, without the values of its tensors.

    Raises:
        TargetError: it holds something else than tensors, numbers, strings and None in tuples, lists, dicts and
            dataclasses, or keys that are neither strings nor integers.
    """
    kind, items = _taken_apart(tree)
    if kind in {"tensor", "value"}:
        return [kind] if kind == "tensor" else [kind, tree]
    parts = [[key, encoded(value)] for key, value in items]
    return [kind, type(tree).__name__, parts] if kind in {"dataclass", "namedtuple"} else [kind, parts]


def decoded(node: Any) -> Tree:
    """The tree that `encoded` described, with an empty tensor in the place of each.

    Raises:
        ValueError: the data describe no tree.
    """
    match node:
        case ["tensor"]:
            return torch.empty(0)
        case ["value", None | bool() | int() | float() | str() as value]:
            return value
        case ["tuple" | "list" | "dict" | "record" as kind, list() as parts]:
            made = {"tuple": tuple, "list": list, "dict": dict, "record": Record}[kind]
            items = _items(parts)
            return made(items if kind in {"dict", "record"} else [value for _, value in items])
        case ["dataclass" | "namedtuple" as kind, str() as name, list() as parts]:
            return _fields(kind, name, _items(parts))
    raise ValueError(f"this describes no outputs: {str(node)[:80]}")


def _taken_apart(tree: Tree) -> tuple[str, list[tuple[Any, Any]]]:
    """What a node is, and its parts."""
    if isinstance(tree, Tensor):
        return "tensor", []
    if tree is None or isinstance(tree, bool | int | float | str):
        return "value", []
    if isinstance(tree, Mapping):
        odd = next((key for key in tree if not isinstance(key, str | int)), None)
        if odd is not None:
            raise TargetError(f"keys of outputs must be strings or integers to be written to a file, not {odd!r}")
        return "record" if dataclasses.is_dataclass(tree) else "dict", list(tree.items())
    if isinstance(tree, tuple | list):
        named = getattr(tree, "_fields", None) or getattr(tree, "__match_args__", None)  # of `torch.return_types`
        kind = "namedtuple" if named else "tuple" if isinstance(tree, tuple) else "list"
        return kind, list(zip(named or range(len(tree)), tree, strict=True))
    if dataclasses.is_dataclass(tree):
        return "dataclass", [(f.name, getattr(tree, f.name)) for f in dataclasses.fields(tree)]
    raise TargetError(
        f"a network must return tensors, in tuples, lists, dicts or dataclasses if there are several; there is a "
        f"{type(tree).__name__} among its outputs"
    )


def _items(parts: Iterable[Any]) -> list[tuple[Any, Tree]]:
    items = []
    for part in parts:
        match part:
            case [str() | int() as key, node]:
                items.append((key, decoded(node)))
            case _:
                raise ValueError(f"this describes no output: {str(part)[:80]}")
    return items


def _fields(kind: str, name: str, items: list[tuple[Any, Tree]]) -> Tree:
    keys, values = [str(key) for key, _ in items], [value for _, value in items]
    made: Any = namedtuple(name, keys) if kind == "namedtuple" else dataclasses.make_dataclass(name, keys)
    return made(*values)

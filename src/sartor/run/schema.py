"""Records as JSON and back, checked; and the page of documentation that their fields make."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from sartor.core.errors import StateError

T = TypeVar("T")


def encode(value: Any) -> Any:
    """A record, or records in lists and mappings, as JSON-able data; what cannot be written (functions) is left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = (f for f in dataclasses.fields(value) if f.repr)
        return {f.name: encode(getattr(value, f.name)) for f in shown}
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in value.items()}
    return [encode(v) for v in value] if isinstance(value, list | tuple) else value


def decode(kind: type[T], data: Any, where: str) -> T:
    """The record of type `kind` that `encode` made `data` of.

    Args:
        kind: A dataclass, or a type made of some.
        data: As from JSON.
        where: For messages: the file, or the stage.

    Raises:
        StateError: A field is missing or has the wrong type; says which.
    """
    try:
        return _adapter(kind).validate_python(data)  # type: ignore[no-any-return,arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"]).lstrip(".")
        raise StateError(
            f"{where}: {path or 'its content'} is not as it should be ({first['msg'].lower()}); restore the "
            "file, or run again in a new folder"
        ) from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def page(kind: type, title: str, text: str) -> str:
    """Markdown: one table per record that `kind` is made of, from the fields and the docstrings."""
    return "\n\n".join([f"# {title}", text, *(_section(found) for found in _records(kind))]) + "\n"


def _records(kind: type) -> list[type]:
    """`kind`, and every dataclass in its fields, in order of appearance."""
    found = [kind]
    for record in found:  # grows while it is walked
        for hint in typing.get_type_hints(record).values():
            found += [inner for inner in _inside(hint) if inner not in found]
    return found


def _inside(hint: Any) -> Iterator[type]:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield hint
    for inner in typing.get_args(hint):
        yield from _inside(inner)


def _section(record: type) -> str:
    about, attributes = _documented(record)
    hints = typing.get_type_hints(record)
    rows = [
        f"| `{f.name}` | {_words(hints[f.name])} | {attributes.get(f.name, '')} |"
        for f in dataclasses.fields(record)
        if f.repr
    ]
    return "\n".join([f"## {record.__name__}", "", about, "", "| field | type | what it is |", "|---|---|---|", *rows])


def _documented(record: type) -> tuple[str, dict[str, str]]:
    """What stands before `Attributes:` in a docstring, and its entries."""
    about, _, listed = (inspect.getdoc(record) or "").partition("Attributes:")
    attributes, name = dict[str, str](), ""
    for line in listed.splitlines():
        found = re.match(r"    (\w+): (.*)", line)
        if found:
            name = found[1]
            attributes[name] = found[2]
        elif line.strip() and name:
            attributes[name] += " " + line.strip()
    return about.strip(), attributes


def _words(hint: Any) -> str:
    """A type as a reader of JSON would call it."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_words(a) for a in args)
    if origin is typing.Literal:
        return " or ".join(f"`{a}`" for a in args)
    if origin in (tuple, list, Sequence):
        return f"list of {_words(args[0])}"
    if origin in (dict, Mapping):
        return f"object, name to {_words(args[1])}"
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null", Any: "any"}
    return names.get(hint, str(hint))

"""Records as JSON and back, checked; and the page of documentation that their fields make."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from sartor.core.errors import StateError
from sartor.run.folder import read_json

T = TypeVar("T")


def encode(value: Any) -> Any:
    """A record, or records in lists and mappings, as JSON-able data; what cannot be written (functions) is left out.

    JSON has no word for numbers that are not finite: they become "nan", "inf", "-inf", which `decode` reads.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = (f for f in dataclasses.fields(value) if f.repr)
        return {f.name: encode(getattr(value, f.name)) for f in shown}
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [encode(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


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
        found = [(_place(data, e["loc"]), e["msg"].lower()) for e in error.errors(include_url=False)]
        path, _ = found[0]
        rules = dict.fromkeys(rule for place, rule in found if place == path)  # one per type that would do
        raise StateError(
            f"{where}: {path or 'its content'} is not as it should be ({' or '.join(rules)}); restore the file, or run "
            "again in a new folder"
        ) from error


def load(kind: type[T], path: Path, version: int, remedy: str) -> T:
    """The record that `encode` made the JSON file of.

    Args:
        kind: A dataclass with the field `version`.
        path: The file.
        version: Of the schema, that is known here.
        remedy: What to do with a file of another one.

    Raises:
        StateError: There is no such file, or it is damaged, or of another version.
    """
    data = read_json(path)
    if not isinstance(data, dict):
        raise StateError(f"{path} must hold a JSON object, not a {type(data).__name__}; {remedy}")
    found = data.get("version", 1)
    if found != version:
        who = "sartor 0.1" if found == 1 else "another version of sartor"
        raise StateError(f"{path} was written by {who} (schema {found}, this is {version}); {remedy}")
    return decode(kind, data, str(path))


def _place(data: Any, path: Sequence[int | str]) -> str:
    """The field, as far as the data goes: behind it stand the types of a union that were tried."""
    words = ""
    for part in path:
        if isinstance(data, list) and isinstance(part, int):
            words, data = f"{words}[{part}]", data[part]
        elif isinstance(data, dict) and isinstance(part, str):
            words, data = f"{words}.{part}", data.get(part)
        else:
            break
    return words.lstrip(".")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def page(title: str, text: str, parts: Iterable[tuple[str, type, str]]) -> str:
    """Markdown: a table per record, from the fields and the docstrings.

    Args:
        title: Of the page.
        text: Below it.
        parts: Heading, record and text each; a record that several parts are made of is in the first one.
    """
    lines, done = [f"# {title}", text.strip()], list[type]()
    for heading, kind, words in parts:
        new = [record for record in _records(kind) if record not in done]
        done += new
        lines += [f"## {heading}", words.strip(), *map(_section, new)]
    return "\n\n".join(lines) + "\n"


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
    return "\n".join([f"### {record.__name__}", "", about, "", "| field | type | what it is |", "|---|---|---|", *rows])


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


def _words(hint: Any, *, many: bool = False) -> str:
    """A type as a reader of JSON would call it."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        # one number is like another in JSON
        return " or ".join(_words(a, many=many) for a in args if a is not int or float not in args)
    if origin is typing.Literal:
        return " or ".join(f"`{a}`" for a in args)
    if origin in (tuple, list, Sequence):
        return f"list{'s' * many} of {_words(args[0], many=True)}"
    if origin in (dict, Mapping):
        return f"object{'s' * many}, name to {_words(args[1])}"
    names = {int: "whole number", float: "number", str: "text"}
    if hint in names:
        return names[hint] + "s" * many
    others = {bool: "true or false", type(None): "null", Any: "anything"}
    return others[hint] if hint in others else f"[{hint.__name__}](#{hint.__name__.lower()})"

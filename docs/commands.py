"""Writes the tables of options into docs/commands.md, from the command line itself: `python docs/commands.py`.

A test says when they are out of date.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from typer.models import ArgumentInfo, OptionInfo

PAGE = Path(__file__).with_name("commands.md")
BLOCK = re.compile(r"(<!-- options of (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
KINDS = {str: "text", Path: "path", int: "whole number", float: "number", bool: ""}


@dataclass(frozen=True)
class Parameter:
    """An argument or an option of a command."""

    name: str
    kind: str
    help: str
    default: str


def parameters(command: str) -> list[Parameter]:
    """Arguments and options of a command, in the order of its help."""
    function = import_module(f"sartor.cli.{command}").run
    hints = typing.get_type_hints(function, include_extras=True)
    defaults = {name: p.default for name, p in inspect.signature(function).parameters.items()}
    return [_parameter(name, hints[name], default) for name, default in defaults.items()]


def _parameter(name: str, hint: Any, default: Any) -> Parameter:
    (info,) = [extra for extra in hint.__metadata__ if isinstance(extra, ArgumentInfo | OptionInfo)]
    # in Annotated, typer keeps the first declaration of an option where its default would stand
    declared = [d for d in (info.default, *(info.param_decls or ())) if isinstance(d, str) and d.startswith("--")]
    flag = declared[0] if declared else f"--{name.rstrip('_').replace('_', '-')}"
    shown = flag if isinstance(info, OptionInfo) else info.metavar or name.rstrip("_").upper()
    text, braced, stated = (info.help or "").partition(" [default: ")
    stated, _, rest = stated.partition("]")
    if default is inspect.Parameter.empty:
        value = "required"
    elif braced:
        value = stated
    else:
        value = "" if default is None or default is False or default == "" else f"`{default}`"
    return Parameter(shown, _kind(hint.__origin__), " ".join(f"{text}{rest}".split()), value)


def _kind(hint: Any) -> str:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (hint,) = [h for h in typing.get_args(hint) if h is not types.NoneType]
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(hint))
    if typing.get_origin(hint) is list:
        return f"{_kind(typing.get_args(hint)[0])}, repeatable"
    return KINDS[hint]


def flags(command: str) -> set[str]:
    """All options that a command takes: `--json`, ..."""
    return {"--help", *(p.name for p in parameters(command) if p.name.startswith("--"))}


def table(command: str) -> str:
    """Name, value, meaning and default of every argument and option, as Markdown."""
    rows = ["| | value | what it is | default |", "|---|---|---|---|"]
    for p in parameters(command):
        cells = (p.kind, p.help, p.default)
        rows.append(f"| `{p.name.replace('|', ' or ')}` | {' | '.join(c.replace('|', chr(92) + '|') for c in cells)} |")
    return "\n".join(rows) + "\n"


def current(text: str) -> str:
    """The page with its tables as the commands are now."""
    return BLOCK.sub(lambda m: f"{m[1]}{table(m[2])}{m[3]}", text)


if __name__ == "__main__":
    PAGE.write_text(current(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

"""Writes who offers which ability, who asks for it and what one loses without: `python docs/abilities.py`.

The table goes to docs/abilities.md and into the docstring of sartor.core.abilities; a test says when it is out of date.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sartor
from sartor.core import abilities, plugins

KINDS = ("spaces", "costs", "targets", "evaluators", "strategies")
SOURCE = Path(sartor.__file__).parent
PAGE = Path(__file__).with_name("abilities.md")
MODULE = SOURCE / "core" / "abilities.py"
START = "The table, written by `make docs`:\n\n"
INTRO = """\
# Abilities

What a part *may* offer beyond what its kind must do (`src/sartor/core/contracts.py`). A part offers an ability by
having its methods; nobody is asked by name. `make docs` writes this page from the code.

| ability | what it is | offered by | asked for by | without it |
|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Ability:
    """One row of the table.

    Attributes:
        name: Of the protocol.
        what: Its first line.
        without: What one loses without it.
        offers: The plug-ins that have it, `spaces/cells`.
        asks: The modules that ask for it, `costs/macs`.
    """

    name: str
    what: str
    without: str
    offers: tuple[str, ...]
    asks: tuple[str, ...]


def table() -> list[Ability]:
    """All abilities, in the order of the module."""
    classes = [(f"{k}/{n}", plugins.load(k, n)) for k in KINDS for n in plugins.names(k)]
    asked = list(_asked())
    found = []
    for name, ability in vars(abilities).items():
        if not getattr(ability, "_is_protocol", False) or ability.__module__ != abilities.__name__:
            continue
        text = inspect.getdoc(ability) or ""
        what, without = text.partition("\n")[0], " ".join(text.partition("Without: ")[2].partition("\n\n")[0].split())
        asks = dict.fromkeys(module for module, wanted in asked if wanted == name)
        found.append(Ability(name, what, without, tuple(p for p, c in classes if _offers(c, ability)), tuple(asks)))
    return found


def _offers(plugin: type[Any], ability: type[Any]) -> bool:
    """Whether the class derives from the protocol or has all of its methods; attributes may be of instances only."""
    methods = [n for n, v in vars(ability).items() if inspect.isfunction(v) and not n.startswith("_")]
    return ability in plugin.__mro__ or all(hasattr(plugin, name) for name in methods)


def _asked() -> Iterator[tuple[str, str]]:
    """(module, ability) of every `require(thing, Ability, by)` and `isinstance(thing, Ability)`."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
                for part in ast.walk(node.args[1]) if node.func.id in ("require", "isinstance") else ():
                    if isinstance(part, ast.Name):
                        yield str(path.relative_to(SOURCE).with_suffix("")), part.id


def page(rows: list[Ability]) -> str:
    """The page of the documentation."""
    lines = []
    for row in rows:
        offers, asks = (", ".join(f"`{name}`" for name in names) for names in (row.offers, row.asks))
        lines.append(f"| `{row.name}` | {row.what} | {offers} | {asks} | {_capital(row.without)} |\n")
    return INTRO + "".join(lines)


def docstring(rows: list[Ability]) -> str:
    """The same, for those who read the module."""
    parts = []
    for row in rows:
        lines = [
            f"offered by {', '.join(row.offers)}",
            f"asked for by {', '.join(row.asks)}",
            f"without: {row.without}",
        ]
        parts.append("\n".join([f"{row.name}: {row.what}", *map(_wrapped, lines)]))
    return "\n".join(parts)


def _wrapped(text: str) -> str:
    return textwrap.fill(
        text, 116, initial_indent="    ", subsequent_indent="        ", break_long_words=False, break_on_hyphens=False
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def module(rows: list[Ability], source: str) -> str:
    """The source of the module with the table in its docstring."""
    _, head, rest = source.split('"""', 2)
    head = head.partition(START)[0]
    return f'"""{head}{START}{docstring(rows)}\n"""{rest}'


if __name__ == "__main__":
    everything = table()
    PAGE.write_text(page(everything), encoding="utf-8")
    MODULE.write_text(module(everything, MODULE.read_text(encoding="utf-8")), encoding="utf-8")

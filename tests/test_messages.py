"""Every deliberate error in the source states rule, value and remedy in one line: as far as a program sees.

What a message is made of by other functions is not seen here: `test_messages_are_found` says how much is.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import sartor
from sartor import exporting
from sartor.core import errors
from sartor.core.errors import SartorError

SOURCE = Path(sartor.__file__).parent
KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, SartorError)}
KINDS |= {exporting.NarrowError.__name__, "StrangerError"}
PARTS = {"NarrowError", "StrangerError", "DivergedError", "TrialTimeoutError", "BudgetSpentError", "SingularError"}
"""What ends a trial or becomes a part of another message: there is nothing for a user to do."""

ELSEWHERE = re.compile(
    r"\bsee `?(?:sartor|the)\b|\bsee the (?:docs?|log)|for (?:the )?(?:reasons?|details|more)\b", re.I
)
"""A reason that stands somewhere else."""
REMEDY = re.compile(r";|\b(?:must|needs?|takes?|as in|use|set|give)\b|pip install|did you mean|, not \{|\(\{[^}]*\}\)$")
"""A rule, or something to do."""
RULE = re.compile(r"\bmust (?:be|have|lie|name)\b|, got\b|; got\b")


@dataclass(frozen=True)
class Message:
    """A message, with `{...}` in the place of values."""

    place: str
    kind: str
    text: str

    @property
    def seen(self) -> bool:
        """Whether its words stand where it is raised."""
        return bool(re.sub(r"\{[^{}]*\}", "", self.text).strip(" :;,."))


def worded(node: ast.expr) -> str:
    """The text of an expression, with the source of values in braces; of alternatives the first."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(worded(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return worded(node.left) + worded(node.right)
    if isinstance(node, ast.IfExp):
        return worded(node.body)
    inner = node.value if isinstance(node, ast.FormattedValue) else node
    return "{" + re.sub(r"[{}]", "", ast.unparse(inner)) + "}"


def messages(tree: ast.AST, name: str) -> Iterator[Message]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            kind = ast.unparse(node.exc.func).rpartition(".")[2]
            if kind in KINDS:
                yield Message(f"{name}:{node.lineno}", kind, worded(node.exc.args[0]))


def wrong(message: Message) -> list[str]:
    """What the house does not want."""
    text, last = message.text, message.text.rstrip("'\")`")
    found = []
    if "\n" in text:
        found.append("it has several lines")
    if text != text.strip() or last.endswith((".", "!")):
        found.append("it ends with a full stop or a space")
    if ELSEWHERE.search(text):
        found.append("its reason stands somewhere else")
    if RULE.search(text) and "{" not in text:
        found.append("it has a rule and not the value that breaks it")
    tail = text.endswith("}")  # a hint, or the reason that somebody else gives
    if message.kind not in PARTS and not REMEDY.search(text) and not tail:
        found.append("it says neither what must be nor what to do")
    return found


FILES = {p.relative_to(SOURCE).as_posix(): p.read_text(encoding="utf-8") for p in sorted(SOURCE.rglob("*.py"))}
FOUND = [message for name, text in FILES.items() for message in messages(ast.parse(text), name)]


def test_messages_are_found():
    assert len(FOUND) > 600
    assert sum(m.seen for m in FOUND) > 0.95 * len(FOUND)
    assert {m.kind for m in FOUND} >= {"ConfigError", "DataError", "CapabilityError", "TargetError", "StateError"}


def test_every_message_helps():
    listed = [f"{m.place} {m.kind} {m.text!r}: {'; '.join(found)}" for m in FOUND if m.seen and (found := wrong(m))]
    assert not listed, "\n".join(listed)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("raise ConfigError(f'x must be at least 1, got {x}')", []),
        ("raise ConfigError('x must be at least 1')", ["it has a rule and not the value that breaks it"]),
        ("raise DataError(f'{path} is odd')", ["it says neither what must be nor what to do"]),
        ("raise DataError(f'{path} is odd: {error}')", []),
        ("raise DataError(f'{path} is odd; mend it.')", ["it ends with a full stop or a space"]),
        ("raise DataError(f'{path}\\nis odd; mend it')", ["it has several lines"]),
        (
            "raise errors.StateError('no way' + f' {x}; see `sartor space` for why')",
            ["its reason stands somewhere else"],
        ),
        ("raise DivergedError(f'{x} is not finite here')", []),
        ("raise ValueError('x')", None),
        ("raise", None),
    ],
)
def test_the_rules_see_what_they_look_for(source, expected):
    found = list(messages(ast.parse(source), "x.py"))
    assert [wrong(m) for m in found] == ([] if expected is None else [expected])

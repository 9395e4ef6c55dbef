"""What all commands have in common."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from importlib import import_module
from types import ModuleType
from typing import Annotated

import pytest
import typer
from typer.models import ArgumentInfo, OptionInfo

from sartor.cli import main
from sartor.core.plugins import names


def helps(command: str) -> list[str]:
    """The docstring's paragraphs and the help text of every argument and option, as they are written."""
    function = import_module(f"sartor.cli.{command}").run
    hints = typing.get_type_hints(function, include_extras=True)
    found = [extra.help for hint in hints.values() for extra in getattr(hint, "__metadata__", ())
             if isinstance(extra, ArgumentInfo | OptionInfo)]  # fmt: skip
    return [text for text in (*(inspect.getdoc(function) or "").split("\n\n"), *found) if text]


def words(text: str) -> str:
    """Without what draws the boxes, and with single spaces."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", text)


def shown(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("COLUMNS", "600")  # every text stays on one line
    assert main([command, "--help"]) == 0
    return words(capsys.readouterr().out)


@pytest.mark.parametrize("command", names("cli"))
def test_no_help_text_loses_its_brackets(command, monkeypatch, capsys):
    text = shown(command, monkeypatch, capsys)
    assert len(helps(command)) >= 2
    for wanted in helps(command):
        assert words(wanted) in text, wanted


def test_some_help_texts_have_brackets():
    assert sum("[" in text for command in names("cli") for text in helps(command)) >= 4


def test_the_default_of_a_folder_is_told(monkeypatch, capsys):
    assert "The run folder [default: runs/NAME]." in shown("fit", monkeypatch, capsys)


def odd(
    file: Annotated[str, typer.Argument(help="One [bold]of[/bold] several [files].")] = "",
    number: Annotated[int, typer.Option(help="As in [0, 1], a[3] or [link=x]y[/].")] = 0,
) -> int:
    """Do [nothing] at all.

    Options are [like this].
    """
    return len(file) + number


def test_whatever_stands_in_brackets_is_text(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sartor.cli.report", ModuleType("report"))
    sys.modules["sartor.cli.report"].run = odd
    text = shown("report", monkeypatch, capsys)
    for wanted in helps("report"):
        assert words(wanted) in text

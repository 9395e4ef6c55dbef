"""Whatever is typed behind any option of any command: status 2, one line, no traceback; listed from the commands."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import tomli_w
from typer.models import ArgumentInfo, OptionInfo

from sartor.cli import main
from sartor.core.plugins import names
from small import settings

NONSENSE = (
    "",
    " ",
    "no\nsuch\nthing",
    "-1",
    "1e400",
    "nan",
    "=",
    "a.b.c=",
    ":",
    "../..",
    "[",
    "{}",
    "%",
    "é" * 5000,
    "0" * 400,
)
FITTED = ("fit", "search")
BUDGET = {"macs": 1}
"""No network meets it: what got as far as that has refused nothing before, and ends all the same."""


def parameters(command: str) -> Iterator[tuple[str, typing.Any, object]]:
    """Flag (or "" for an argument), type and default of all that a command takes."""
    function = import_module(f"sartor.cli.{command}").run
    hints = typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        (info,) = [extra for extra in hint.__metadata__ if isinstance(extra, ArgumentInfo | OptionInfo)]
        declared = [d for d in (info.default, *(info.param_decls or ())) if isinstance(d, str) and d.startswith("--")]
        flag = declared[0] if declared else f"--{name.rstrip('_').replace('_', '-')}"
        yield flag if isinstance(info, OptionInfo) else "", hint.__origin__, parameter.default


def options() -> list[tuple[str, str]]:
    return [(c, flag) for c in names("cli") for flag, kind, _ in parameters(c) if flag and kind is not bool]


def numbers() -> list[tuple[str, str]]:
    """Options that take a number, or one of a few words."""

    def closed(kind: typing.Any) -> bool:
        args = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
        return any(a in (int, float) or typing.get_origin(a) is typing.Literal for a in args)

    return [(c, flag) for c in names("cli") for flag, kind, _ in parameters(c) if flag and closed(kind)]


def required(command: str) -> list[str]:
    """As many arguments as must be there, of files that are not."""
    absent = inspect.Parameter.empty
    return ["nothing-here" for flag, _, default in parameters(command) if not flag and default is absent]


def refused(line: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """What a command says that exits with 2: one line."""
    code = main(line)
    out, err = capfd.readouterr()
    assert code == 2, (line[:4], out[-500:], err[-500:])
    assert "Traceback" not in out + err
    assert out == ""
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1, (line[:4], err)
    assert len(err) < 1000, err
    return err


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small fit that no network meets the budget of, in an empty folder where the test is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("small.toml").write_text(tomli_w.dumps(settings(budget=BUDGET)), encoding="utf-8")
    return "small.toml"


def test_options_are_found():
    assert len(options()) >= 40
    assert len(numbers()) >= 15
    assert {c for c, _ in options()} >= {"fit", "export", "measure", "compare", "bench"}


@pytest.mark.parametrize(("command", "flag"), options())
def test_nonsense_behind_an_option_is_refused_in_a_line(command, flag, recipe, capfd):
    for value in NONSENSE:
        arguments = [recipe, "run"] if command in FITTED else required(command) or ["nothing-here"]
        refused([command, *arguments, f"{flag}={value}"], capfd)


@pytest.mark.parametrize(("command", "flag"), numbers())
def test_what_is_no_number_names_the_option(command, flag, recipe, capfd):
    assert flag in refused([command, *required(command), f"{flag}=a few"], capfd)


@pytest.mark.parametrize("command", names("cli"))
def test_options_that_there_are_not_and_arguments_too_many(command, recipe, capfd):
    assert "--nonsense" in refused([command, *required(command), "--nonsense"], capfd)
    if required(command) and command != "compare":
        refused([command], capfd)
        refused([command, *required(command), "another"], capfd)

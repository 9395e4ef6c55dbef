"""The command line, one module per command; a module is found by its name and imported only when it runs."""

from __future__ import annotations

import difflib
import errno
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sartor import __version__
from sartor.core.errors import SartorError, StateError
from sartor.core.plugins import names, purpose

OK, MISSED, MISTAKE, STOPPED = 0, 1, 2, 130
"""Exit codes: all well; a budget or a check is not met; a deliberate error; stopped by the user (it can go on)."""


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""Errors of the system that are no mistake of the program: full, read-only, forbidden and broken disks."""
LONGEST = 800
"""Characters of a message, at most."""

INPUT_HELP = (
    "Shape of the input, batch first: 1,3,224,224 unless given. Repeatable: in order, or by name, with a type if need "
    "be: --input image=1,3,64,64 --input ids=int64:1,16."
)

TRUST_HELP = "Run code that a recipe from another folder names, as in network = my_net:build."


def main(arguments: list[str] | None = None) -> int:
    """Entry point: deliberate errors become one line on stderr and exit status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("--help", "-h", "help", "--version"):
        _overview(version="--version" in arguments[:1])
        return OK
    name = arguments[0]
    if name not in names("cli"):
        near = difflib.get_close_matches(name, names("cli"), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names('cli'))}"
        sys.stderr.write(f"sartor: no command {name!r}; {hint}\n")
        return MISTAKE
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with _disk_in_words():
            return _run(name, arguments[1:])
    except SartorError as error:
        sys.stderr.write(f"sartor: {_short(str(error))}\n")
        return MISTAKE
    except KeyboardInterrupt:
        sys.stderr.write(
            f"sartor: stopped; nothing is lost. To go on, run the same again: sartor {' '.join(arguments)}\n"
        )
        return STOPPED


@contextmanager
def _disk_in_words() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in DISK:
            raise
        place = error.filename or "its files"
        raise StateError(f"cannot read or write {place}: {error.strerror}; mend that and run the same again") from error


def _run(name: str, arguments: list[str]) -> int:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name)(import_module(f"sartor.cli.{name}").run)
    command = typer.main.get_command(app)
    command.help = escape(command.help or "")
    for parameter in command.params:
        # what stands in brackets is text, not a style of rich's
        parameter.help = escape(getattr(parameter, "help", None) or "")  # type: ignore[attr-defined]
    try:
        code = command(arguments, prog_name=f"sartor {name}", standalone_mode=False)
    except Exception as error:
        # typer's own mistakes: a missing argument, an unknown option
        if not hasattr(error, "exit_code") or not hasattr(error, "format_message"):
            raise
        said = error.format_message().rstrip().rstrip(".")
        sys.stderr.write(f"sartor: {_short(said)}; sartor {name} --help lists what there is\n")
        return MISTAKE
    if code == STOPPED:  # typer has caught the interrupt
        raise KeyboardInterrupt
    return int(code or OK)


def _short(text: str) -> str:
    """One line without what a terminal would obey (names of files may hold it), nor the middle of a value of pages."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return text if len(text) <= LONGEST else f"{text[: LONGEST * 2 // 3]} ... {text[-LONGEST // 3 :]}"


def _terminate(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    raise KeyboardInterrupt


def _overview(*, version: bool) -> None:
    if version:
        sys.stdout.write(f"sartor {__version__}\n")
        return
    console = Console()
    console.print("sartor fits a neural network to a budget: measured latency, MACs, parameters or memory.\n")
    table = Table(box=None, padding=(0, 2), show_header=False)
    for name in names("cli"):
        table.add_row(f"[bold]{name}[/bold]", escape(purpose("cli", name)))
    console.print(table)
    console.print(
        "\n[bold]sartor fit[/bold] without arguments shows what it does; [bold]sartor COMMAND --help[/bold] says more."
    )

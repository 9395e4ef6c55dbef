from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console
from rich.table import Table

from sartor.run import progress
from sartor.run.progress import Bars, Display, Lines, Silent


def terminal() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(force_terminal=True, file=file, width=100, color_system=None), file


def pipe() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=160), file


def visible(text: str) -> str:
    """Without the control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.mark.parametrize("message", ["[space] has no name", "[/b] closes nothing", "a [bold]word[/bold]", "50%"])
@pytest.mark.parametrize("kind", [Bars, Lines])
def test_brackets_are_shown_as_they_are(kind: type[Bars] | type[Lines], message: str) -> None:
    console, file = terminal() if kind is Bars else pipe()
    display = kind(console)
    display.stage(message)
    display.say(message)
    assert visible(file.getvalue()).count(message) == 2


@pytest.mark.parametrize("kind", [Bars, Lines])
def test_tables_can_be_said(kind: type[Bars] | type[Lines]) -> None:
    console, file = pipe()
    table = Table("width")
    table.add_row("64")
    kind(console).say(table)
    assert "64" in file.getvalue()


def test_bars_show_label_and_percentage_and_leave_nothing_behind() -> None:
    console, file = terminal()
    bars = Bars(console)
    bars.bar(1, 4, "trial [3]")
    bars.bar(2, 4, "trial [3]")
    bars._progress.refresh()  # type: ignore[union-attr]
    shown = visible(file.getvalue())
    assert "trial [3]" in shown
    assert "50%" in shown
    bars.bar(4, 4, "trial [3]")
    assert bars._progress is None
    assert file.getvalue().rstrip().endswith("\x1b[2K") or "\x1b[2K" in file.getvalue()


def test_another_label_starts_another_bar() -> None:
    console, file = terminal()
    bars = Bars(console)
    bars.bar(1, 4, "first")
    bars.bar(1, 2, "second")
    bars._progress.refresh()  # type: ignore[union-attr]
    assert len(bars._progress.tasks) == 1  # type: ignore[union-attr]
    assert "second" in visible(file.getvalue())
    bars.close()


@pytest.mark.parametrize("end", [lambda b: b.close(), lambda b: b.stage("next"), lambda b: b.say("a line")])
def test_stages_lines_and_close_end_the_bar(end) -> None:
    console, file = terminal()
    bars = Bars(console)
    bars.bar(1, 4, "work")
    end(bars)
    assert bars._progress is None
    assert file.getvalue().count("\x1b[?25l") == file.getvalue().count("\x1b[?25h") == 1  # the cursor is back
    bars.bar(2, 4, "work")
    bars.close()


def test_lines_are_at_most_one_every_few_seconds() -> None:
    console, file = pipe()
    lines = Lines(console, every=0.2)
    begin = time.monotonic()
    for i in range(1, 300):
        lines.bar(i, 300, f"epoch {i // 20}")
        time.sleep(0.002)
    spent = time.monotonic() - begin
    assert 1 <= len(file.getvalue().splitlines()) <= spent / 0.2


def test_lines_say_what_is_done_and_left() -> None:
    console, file = pipe()
    lines = Lines(console, every=0)
    lines.bar(0, 4, "trials")
    time.sleep(0.01)
    lines.bar(1, 4, "trials")
    lines.bar(4, 4, "trials")
    assert re.fullmatch(r"  trials: 1 of 4, \d+ s left\n", file.getvalue())


def left(file: io.StringIO) -> float:
    return float(re.findall(r"(\d+) s left", file.getvalue())[-1])


def test_what_earlier_sessions_did_does_not_make_the_rest_look_short() -> None:
    console, file = pipe()
    lines = Lines(console, every=0)
    lines.bar(900, 1000, "trials")
    time.sleep(0.1)
    lines.bar(901, 1000, "trials")  # a tenth of a second for one: ten seconds for the other 99
    assert left(file) >= 9


def test_the_same_work_from_the_start_is_timed_from_the_start() -> None:
    console, file = pipe()
    lines = Lines(console, every=0)
    lines.bar(0, 100, "epoch")
    time.sleep(0.3)
    lines.bar(100, 100, "epoch")
    lines.bar(0, 100, "epoch")
    begin = time.monotonic()
    time.sleep(0.01)
    lines.bar(1, 100, "epoch")
    assert left(file) <= 99 * (time.monotonic() - begin + 0.01) + 1


def test_lines_without_a_total_say_nothing() -> None:
    console, file = pipe()
    lines = Lines(console, every=0)
    lines.bar(0, 0, "x")
    lines.bar(0, 0, "x")
    assert file.getvalue() == ""


def test_silence(capfd: pytest.CaptureFixture[str]) -> None:
    silent: Display = Silent()
    silent.stage("a")
    silent.bar(1, 2)
    silent.say("b")
    silent.close()
    assert capfd.readouterr() == ("", "")


def test_the_display_fits_where_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(progress.display(quiet=True), Silent)
    display = progress.display()
    assert isinstance(display, Lines)  # captured: no terminal
    display.say("on stderr")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "on stderr\n")

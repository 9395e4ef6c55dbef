"""One place opens sessions and interleaves them; the clock is read there and in the runner, nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sartor

SOURCE = Path(sartor.__file__).parent
CALLS = ("interleave", "bind")
CLOCKS = {
    f"{name}{unit}"
    for name in ("perf_counter", "monotonic", "time", "thread_time", "process_time")
    for unit in ("", "_ns")
}


def calls(tree: ast.AST) -> Iterator[str]:
    """Names of what is called or handed on, `interleave` and `.bind`, and where; not `inspect.Signature.bind`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).partition("(")[0].endswith("signature"):
            continue
        if isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if name in CALLS:
                yield f"{node.lineno}: {name}"


def clocks(tree: ast.AST) -> Iterator[str]:
    """What of the module `time` tells the time."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time":
            names = {node.attr}
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            names = {alias.name for alias in node.names}
        else:
            continue
        yield from sorted(names & CLOCKS)


def offenders(found, allowed):
    trees = {p.relative_to(SOURCE): ast.parse(p.read_text(encoding="utf-8")) for p in sorted(SOURCE.rglob("*.py"))}
    assert len(trees) > 100
    inside = {str(p): list(found(t)) for p, t in trees.items() if p.parts[0] in allowed}
    assert any(inside.values()), "what is looked for is nowhere: the test looks for the wrong thing"
    return {str(p): list(found(t)) for p, t in trees.items() if p.parts[0] not in allowed and list(found(t))}


def test_nobody_else_opens_and_interleaves_sessions() -> None:
    assert offenders(calls, {"timing"}) == {}, "call sartor.timing.meter.time_together instead"


def test_nobody_else_reads_a_clock() -> None:
    assert offenders(clocks, {"timing", "run"}) == {}, "times come from sartor.timing, durations from sartor.run"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("timed = interleave({}, rounds=3)", ["1: interleave"]),
        ("calls = [measure.interleave]", ["1: interleave"]),
        ("call = target.load(file).bind(x)", ["1: bind"]),
        ("x.repeat_interleave(2); interleaved(x); def_bind = 3", []),
        ("signature.bind(*x); inspect.signature(f).bind(x); self.session.bind(x)", ["1: bind"]),
    ],
)
def test_a_seeded_defect_is_found(code: str, found: list[str]) -> None:
    assert list(calls(ast.parse(code))) == found


@pytest.mark.parametrize(
    "code", ["import time\ntime.monotonic()", "from time import perf_counter_ns", "f = time.process_time"]
)
def test_a_seeded_clock_is_found(code: str) -> None:
    assert list(clocks(ast.parse(code)))
    assert not list(clocks(ast.parse("import time\ntime.sleep(1)\nself.time()")))

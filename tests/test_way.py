"""The way of `sartor fit` through the code stays as short as it is, and leads forward only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sartor
from way import Way, is_function

FUNCTIONS, FILES = 266, 27
"""At most, on the way from the command to `result.json`."""

BACK_AND_FORTH: tuple[str, ...] = ()
"""Pairs of files that call each other, each with its reason; see docs/concepts.md."""


def test_no_file_on_the_way_is_called_back_and_forth():
    path = os.pathsep.join([str(Path(sartor.__file__).parents[1]), str(Path(__file__).parent)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("way.py"))]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    said = done.stdout[done.stdout.rindex(" functions in ") :].splitlines()
    files = [line.split()[1] for line in said if line.startswith("  ") and " -> " not in line]
    functions = int(done.stdout[: done.stdout.rindex(" functions in ")].split()[-1])
    for file in ("cli/fit.py", "config.py", "jobs/fit/pipeline.py", "jobs/fit/choose.py", "run/runner.py"):
        assert file in files, "the way is not gone whole"
    assert len(files) <= FILES, files
    assert functions <= FUNCTIONS
    pairs = [line for line in said if " <-> " in line]
    assert pairs == list(BACK_AND_FORTH), done.stdout


def profiled(tmp_path, monkeypatch, second):
    """The way through two files, the second of which is given."""
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    (jobs / "first.py").write_text("def go(second):\n    second.take(lambda: len([x for x in (1, 2)]))\n")
    (jobs / "second.py").write_text(second)
    monkeypatch.setattr("way.ROOT", tmp_path)
    first, other = ({}, {})
    for name, found in (("first", first), ("second", other)):
        exec(compile((jobs / f"{name}.py").read_text(), jobs / f"{name}.py", "exec"), found)
    way = Way()
    sys.settrace(way.note)
    try:
        first["go"](type("Second", (), {"take": staticmethod(other["take"])}))
    finally:
        sys.settrace(None)
    return way


@pytest.mark.parametrize(
    "call", ["work()", "[work() for _ in (1,)]", "textwrap.re.sub('a', lambda _: str(work()), 'a')"]
)
def test_a_function_that_is_handed_over_is_called_back(tmp_path, monkeypatch, call):
    way = profiled(tmp_path, monkeypatch, f"import textwrap\ndef take(work):\n    {call}\n")
    assert list(way.pairs()) == [("jobs/first.py", "jobs/second.py")]
    assert way.functions["jobs/first.py"] == {"go", "go.<locals>.<lambda>"}


def test_what_is_not_called_is_not_counted(tmp_path, monkeypatch):
    way = profiled(tmp_path, monkeypatch, "def take(work):\n    return [x for x in (1, 2)]\n")
    assert way.pairs() == {}
    assert way.functions == {"jobs/first.py": {"go"}, "jobs/second.py": {"take"}}


def test_comprehensions_and_bodies_are_no_functions():
    module = compile("class A:\n    def f(self):\n        return [x for x in (1, 2)]\n", "a.py", "exec")
    body = next(c for c in module.co_consts if hasattr(c, "co_code"))
    method = next(c for c in body.co_consts if hasattr(c, "co_code"))
    inner = [c for c in method.co_consts if hasattr(c, "co_code")]
    assert [is_function(c) for c in (module, body, method, *inner)] == [False, False, True, *(False for _ in inner)]

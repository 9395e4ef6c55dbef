"""The way of `sartor fit` through the code: the functions that run, and the files that call each other both ways.

    python tests/way.py

Counted is what a reader of the command follows: `cli`, `config`, `recipes`, `jobs` and `run`. A file is called by the
last file of these that is on the stack, so that what is handed over counts: a function that one file gives to another,
however deep, is called by whoever calls it. Comprehensions are part of where they are written.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import tomli_w

import sartor
from sartor.cli import main
from small import latency_settings

ROOT = Path(sartor.__file__).parent
PARTS = ("cli", "config.py", "recipes", "jobs", "run")


@dataclass
class Way:
    """What has run.

    Attributes:
        functions: File -> names of its functions.
        calls: Who called whom, over a border of files: (file, function, file, function).
    """

    functions: dict[str, set[str]] = field(default_factory=dict)
    calls: set[tuple[str, str, str, str]] = field(default_factory=set)
    _files: dict[CodeType, str] = field(default_factory=dict)

    def note(self, frame: FrameType, _event: str, _argument: Any) -> None:
        """What `sys.settrace` calls whenever a function begins, or a generator goes on."""
        file = self._files.get(frame.f_code)
        if file is None:
            file = self._files[frame.f_code] = _file(frame.f_code)
        if not file or not is_function(frame.f_code):
            return
        name = frame.f_code.co_qualname
        self.functions.setdefault(file, set()).add(name)
        for outer in _outer(frame):
            if caller := self._files.get(outer.f_code):
                if caller != file:
                    self.calls.add((caller, outer.f_code.co_qualname, file, name))
                return

    def pairs(self) -> dict[tuple[str, str], list[str]]:
        """Pairs of files that call each other, with the calls in words."""
        ways = {(caller, called) for caller, _, called, _ in self.calls}
        both = [(a, b) for a, b in ways if a < b and (b, a) in ways]
        return {
            pair: sorted(f"{a}:{f} -> {b}:{g}" for a, f, b, g in self.calls if {a, b} == set(pair))
            for pair in sorted(both)
        }


def _file(code: CodeType) -> str:
    """Where it is written, if that is counted; else ""."""
    path = Path(code.co_filename)
    inside = path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in PARTS
    return path.relative_to(ROOT).as_posix() if inside else ""


def is_function(code: CodeType) -> bool:
    """Whether it is one that somebody reads: no body of a module or class, and no comprehension."""
    return code.co_name == "<lambda>" or not (code.co_name.startswith("<") or not code.co_flags & 2)


def _outer(frame: FrameType) -> Iterator[FrameType]:
    while frame.f_back is not None:
        frame = frame.f_back
        yield frame


def walked() -> Way:
    """The way of a small fit, on the command line, with a budget in milliseconds."""
    way = Way()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "small.toml"
        config.write_text(tomli_w.dumps(latency_settings(strategy={"name": "aows", "epochs": 1})))
        sys.argv = ["sartor", "fit", str(config), str(Path(folder) / "run"), "--quiet"]
        sys.settrace(way.note)
        try:
            main()
        except SystemExit as ended:
            if ended.code:
                raise
        finally:
            sys.settrace(None)
    return way


def told(way: Way) -> str:
    """The figures, and the calls of each pair."""
    lines = [f"{sum(map(len, way.functions.values()))} functions in {len(way.functions)} files"]
    lines += [f"  {len(names):3} {file}" for file, names in sorted(way.functions.items())]
    for (a, b), calls in way.pairs().items():
        lines += [f"{a} <-> {b}", *(f"  {call}" for call in calls)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(told(walked()) + "\n")

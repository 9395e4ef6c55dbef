"""Fresh processes: how one is told of a target and a file, what it is asked, what it answers.

Nothing is pickled: a job is JSON on the standard input of `sartor.timing.worker`, tensors are files. Answers come as
lines of JSON, one object each; whatever else the process prints goes to its standard error.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from sartor.core.contracts import Target
from sartor.core.errors import TargetError

START = """
import json, sys
sys.path[:] = json.loads(sys.stdin.readline())
from sartor.timing.worker import main
main()
"""
"""What a worker runs first: it finds the modules that this process finds, those of a user's own folder among them."""


class StrangerError(TargetError):
    """A process cannot make the target again from its name and settings."""


@dataclass(frozen=True)
class Address:
    """How another process makes the same target.

    Attributes:
        target: `some.module:Class`.
        settings: Of its constructor.
        says: What `describe` says of it here; the other process must hear the same.
    """

    target: str
    settings: Mapping[str, Any]
    says: Mapping[str, str]


@dataclass(frozen=True)
class Source:
    """A network that another process can open: a target that it can make, and a file that the target can load."""

    target: Address
    artifact: Path

    def as_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {**asdict(self.target), "artifact": str(self.artifact)}


def address(target: Target) -> Address | None:
    """How another process makes `target`: its class by name, with the settings that it keeps as attributes.

    Returns:
        None for an object that has no such name: its class is local or was typed at a prompt, or its constructor takes
        what the object does not keep under the same name, or what JSON cannot hold.
    """
    kind = type(target)
    settings: dict[str, Any] = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY or not hasattr(target, name):
            return None
        settings[name] = getattr(target, name)
    if kind.__module__ == "__main__" or "." in kind.__qualname__:
        return None
    try:
        json.dumps(settings)
    except TypeError:
        return None
    return Address(f"{kind.__module__}:{kind.__qualname__}", settings, dict(target.describe()))


def ask(job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The answers of a fresh process to one job, as they come; closing the iterator ends the process.

    Raises:
        StrangerError: The process cannot make the target.
        TargetError: It died, or said what is no answer; the message ends with its last line.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as noise:
        worker = subprocess.Popen(
            [sys.executable, "-c", START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            text=True,
            encoding="utf-8",
        )
        with worker:
            try:
                yield from _answers(worker, job, noise)
            finally:
                worker.kill()  # no harm to one that has ended


def _answers(worker: subprocess.Popen[str], job: Mapping[str, Any], noise: IO[str]) -> Iterator[dict[str, Any]]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        worker.stdin.write(json.dumps(sys.path) + "\n" + json.dumps(job))
        worker.stdin.close()
    except BrokenPipeError:
        pass  # it is dead already: below is why
    for line in worker.stdout:
        answer = _read(line)
        if answer is None:
            raise TargetError(f"{_who(job)} answered with what is no JSON object: {line.strip()[:200]!r}; try it again")
        if "stranger" in answer:
            raise StrangerError(answer["stranger"])
        yield answer
    status = worker.wait()
    if status:
        noise.seek(0)
        last = ([line.strip() for line in noise if line.strip()] or ["no message"])[-1]
        raise TargetError(f"{_who(job)} ended with status {status}: {last}")


def _read(line: str) -> dict[str, Any] | None:
    try:
        answer = json.loads(line)
    except json.JSONDecodeError:
        return None
    return answer if isinstance(answer, dict) else None


def _who(job: Mapping[str, Any]) -> str:
    names = ", ".join(dict.fromkeys(Path(s["artifact"]).name for s in job["subjects"]))
    return f"the process that was to {job['task']} {names}"

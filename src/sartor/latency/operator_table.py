"""Latency tables with one entry per operator and shape: read, written, and summed over networks.

A table is one mapping from keys to `{mean: ms, var: ms^2, count: samples}`, as ProxylessNAS published it (Cai et al.,
"ProxylessNAS: Direct neural architecture search on target task and hardware", ICLR 2019). Tables that sartor measures
have one more key, `sartor_operators`, with what the latencies depend on, and are JSON, which readers of YAML read, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from sartor.core import files, foreign
from sartor.core.abilities import Operated
from sartor.core.errors import DataError, MissingExtraError
from sartor.core.records import Choice, Operator, Operators
from sartor.core.tables import Tables

HEADER = "sartor_operators"
"""The key of what is no operator: the facts of the table."""
VERSION = 1
YAML = (".yaml", ".yml")
MEASURE = "measure it: sartor measure --operators --recipe CONFIG --out FILE"


@dataclass(frozen=True)
class Entry:
    """The latency of one operator.

    Attributes:
        mean: Milliseconds of a call.
        var: Variance of what was averaged, in ms^2.
        count: How many measurements that were.
    """

    mean: float
    var: float = 0.0
    count: int = 1


@dataclass(frozen=True)
class OperatorTable:
    """Latencies of operators by key.

    Attributes:
        entries: Key of an operator -> its latency.
        facts: Target, machine, anchor, sessions, check: what the table says of itself; empty for published ones.
        name: What messages call it: its path.
    """

    entries: Mapping[str, Entry]
    facts: Mapping[str, Any] = field(default_factory=dict)
    name: str = "the latency table"

    @classmethod
    def read(cls, path: Path | str) -> OperatorTable:
        """The table in a `.yaml`, `.yml` or `.json` file.

        Raises:
            DataError: It is missing, no such table, or an entry is no latency; names the key.
            MissingExtraError: It is YAML, and PyYAML is not installed.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError(f"no latency table {path}; {MEASURE}")
        content = _parsed(path)
        if not isinstance(content, dict) or not content:
            raise DataError(f"{path} is no latency table: it must map keys of operators to {{mean: milliseconds}}")
        facts = content.pop(HEADER, {})
        if facts != {} and (not isinstance(facts, dict) or facts.pop("version", None) != VERSION):
            raise DataError(f"{path} is a latency table of another version, this one reads {VERSION}; upgrade sartor")
        return cls({str(key): _entry(path, key, value) for key, value in content.items()}, facts, str(path))

    def write(self, path: Path) -> None:
        """Write the table to a `.json`, `.yaml` or `.yml` file, atomically; `read` takes it back as it is."""
        content = {HEADER: {"version": VERSION, **self.facts}, **{k: asdict(e) for k, e in self.entries.items()}}
        if path.suffix in YAML:
            text = _yaml(path).safe_dump(content, sort_keys=False, width=1000)
        else:
            text = json.dumps(content, indent=1) + "\n"
        files.atomically(path, lambda part: part.write_text(text, encoding="utf-8"))

    def tables(self, space: Operated) -> Tables:
        """The sum of the entries of each network's operators, in milliseconds.

        Raises:
            DataError: An operator has no entry; says which, what needs it, and how many more there are.
        """
        operators = space.operators()
        self._check(space.choices, operators)
        unary = tuple(
            torch.tensor([self._sum(option) for option in options], dtype=torch.float64)
            for options in operators.options
        )
        return Tables(unary, constant=self._sum(operators.fixed))

    def _sum(self, operators: Sequence[Operator]) -> float:
        return math.fsum(self.entries[operator.key].mean for operator in operators)

    def _check(self, choices: Sequence[Choice], operators: Operators) -> None:
        missing: dict[str, str] = {}
        for key, use in _uses(choices, operators):
            if key not in self.entries:
                missing.setdefault(key, use)
        if missing:
            (key, use), more = next(iter(missing.items())), len(missing) - 1
            others = f" (and {more} more keys)" if more else ""
            raise DataError(f"{self.name} has no latency of {key!r}, which {use} runs{others}; {MEASURE}")


def _uses(choices: Sequence[Choice], operators: Operators) -> Iterator[tuple[str, str]]:
    """Keys, each with who runs it."""
    yield from ((operator.key, "every network") for operator in operators.fixed)
    for choice, options in zip(choices, operators.options, strict=True):
        for name, option in zip(choice.options, options, strict=True):
            yield from ((operator.key, f"option {name!r} of choice {choice.name!r}") for operator in option)


def _entry(path: Path, key: str, value: Any) -> Entry:
    remedy = f"give it a mean of at least 0, in milliseconds, or {MEASURE}"
    try:
        entry = Entry(float(value["mean"]), float(value.get("var", 0.0)), int(value.get("count", 1)))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: the entry of {key!r} is no latency: {value!r}; {remedy}") from error
    if not 0 <= entry.mean < math.inf:
        raise DataError(f"{path}: the entry of {key!r} is no latency: {entry.mean}; {remedy}")
    return entry


def _parsed(path: Path) -> Any:
    data = foreign.content(path, DataError)
    if path.suffix not in YAML:
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} is not JSON: {foreign.first_line(error)}; name YAML files .yaml") from error
    yaml = _yaml(path)
    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not YAML: {foreign.first_line(error)}; give another table") from error


def _yaml(path: Path) -> Any:
    try:
        import yaml  # noqa: PLC0415 - an extra: only published tables need it
    except ImportError as error:
        raise MissingExtraError(f"{path} is YAML, which needs PyYAML: pip install 'sartor[yaml]'") from error
    return yaml

"""A space that is down to the networks of a table: every other arch stands for the one most like it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sartor.core import foreign
from sartor.core.errors import DataError
from sartor.core.records import Arch, Choice
from sartor.tabular import KEY


class Pool:
    """The networks that a table has rows of.

    Args:
        path: A CSV file, also with gzip, whose column `arch_str` has the options of all choices with colons between.
        choices: Of the space.

    Raises:
        DataError: The file cannot be read, has no such column, or names other options.
    """

    def __init__(self, path: str | Path, choices: Sequence[Choice]) -> None:
        index = [{str(option): k for k, option in enumerate(c.options)} for c in choices]
        found: dict[Arch, None] = {}
        for row, name in enumerate(_names(Path(path).expanduser()), start=2):
            words = name.split(":")
            if len(words) != len(index) or any(word not in known for word, known in zip(words, index, strict=True)):
                raise DataError(f"line {row} of {path}: {name[:60]!r} is no network of this space; take its own table")
            found[tuple(known[word] for word, known in zip(words, index, strict=True))] = None
        if not found:
            raise DataError(f"{path} has no rows; a pool needs at least one network")
        self.archs: tuple[Arch, ...] = tuple(found)
        self._rows = np.array(self.archs)
        self._steps = np.array([len(c.options) - 1 if c.ordered and len(c.options) > 1 else 0 for c in choices])
        self._members = frozenset(self.archs)

    def nearest(self, arch: Arch) -> Arch:
        """The network with the least sum of differences, the first of equals.

        Of ordered choices the difference is the share of the steps between first and last option, of others 0 or 1.
        """
        if arch in self._members:
            return arch
        gaps = np.abs(self._rows - np.array(arch))
        far = np.where(self._steps > 0, gaps / np.maximum(self._steps, 1), gaps > 0).sum(1)
        return self.archs[int(far.argmin())]


def _names(path: Path) -> list[str]:
    try:
        text = foreign.text(path, DataError)
        rows = list(csv.DictReader(text.splitlines()))
    except (DataError, csv.Error) as error:
        raise DataError(f"cannot read the pool {path}: {error}") from error
    if rows and KEY not in rows[0]:
        raise DataError(f"{path} has no column {KEY!r}, which names the networks; it has {', '.join(rows[0])}")
    return [row[KEY] for row in rows]

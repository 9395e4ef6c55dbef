"""Files from elsewhere: how much of one is read, to what it unpacks, how deep it nests; none of it is run.

What fails is raised as the class of error that the caller names, with the file's name.
"""

from __future__ import annotations

import gzip
import json
import re
import tomllib
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sartor.core.errors import SartorError

TEXT = 2**28
"""Bytes of a text file (JSON, CSV, YAML) that are read; a larger one is refused."""

SETTINGS = 2**22
"""Bytes of a config."""

ROOM = 2**30
"""Bytes that an archive may unpack to, however small it is."""

RATIO = 100
"""How many times its own size a larger archive may unpack to: deflate reaches 1,032 on purpose only."""


def content(path: Path, error: type[SartorError], *, most: int = TEXT) -> bytes:
    """What is in a file, unpacked if it is gzip.

    Raises:
        SartorError: Of the class `error`: it cannot be read, or is (or unpacks to) more than `most` bytes.
    """
    try:
        with path.open("rb") as file:
            packed = path.suffix == ".gz" or file.read(2) == b"\x1f\x8b"
            file.seek(0)
            data = b"" if packed else file.read(most + 1)
        if packed:
            return _unpacked(path, error, most)
    except FileNotFoundError as missing:
        raise error(f"there is no file {path}; correct the path") from missing
    except (OSError, EOFError, zlib.error) as wrong:
        raise error(f"cannot read {path} ({first_line(wrong)}); name a file, or write it again") from wrong
    if len(data) > most:
        raise error(f"{path} has more than {size(most)}, too much to be read at once; is it the right file?")
    return data


def text(path: Path, error: type[SartorError], *, most: int = TEXT) -> str:
    """What is in a file of UTF-8, with or without a mark of its byte order, unpacked if it is gzip.

    Raises:
        SartorError: Of the class `error`: as `content`, or it is no UTF-8.
    """
    try:
        return content(path, error, most=most).decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        raise error(f"{path} is no text in UTF-8 ({wrong.reason} at byte {wrong.start}); write it again") from wrong


def from_json(data: str | bytes, where: str, error: type[SartorError]) -> Any:
    """The value of a JSON text.

    Raises:
        SartorError: Of the class `error`: it is no JSON, or nested too deep.
    """
    try:
        return json.loads(data)
    except RecursionError as deep:
        raise error(f"{where} is not JSON that sartor reads: it is nested too deep; write it again") from deep
    except ValueError as wrong:
        raise error(f"{where} is not JSON ({first_line(wrong)}); write it again") from wrong


def from_toml(data: bytes, where: str, error: type[SartorError]) -> dict[str, Any]:
    """The tables of a TOML text.

    Raises:
        SartorError: Of the class `error`: it is no TOML, or nested too deep.
    """
    try:
        return tomllib.loads(data.decode())
    except RecursionError as deep:
        raise error(f"{where} is not TOML that sartor reads: it is nested too deep; correct it") from deep
    except ValueError as wrong:
        raise error(f"{where} is not TOML: {first_line(wrong)}") from wrong


def members(path: Path, error: type[SartorError], *, fold: bool = False) -> Mapping[str, zipfile.ZipInfo]:
    """What is in a zip archive by name, in the archive's order; only its index is read.

    Args:
        path: The file.
        error: What is raised.
        fold: Whether its readers take names for equal that differ in capitals only.

    Raises:
        SartorError: Of the class `error`: it is no archive, is encrypted, holds a name twice (two readers could then
            see two files), or unpacks to far more than it is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            listed = archive.infolist()
    except Exception as wrong:  # what zipfile raises on a damaged index is not documented
        raise error(f"cannot read {path} as an archive ({first_line(wrong)}); write it again") from wrong
    if sum(entry.file_size for entry in listed) > max(ROOM, RATIO * path.stat().st_size):
        raise error(
            f"{path} has {size(path.stat().st_size)} and unpacks to {size(sum(e.file_size for e in listed))}, more "
            f"than {RATIO} times as much; it is refused unread: write it again"
        )
    if any(entry.flag_bits & 1 for entry in listed):
        raise error(f"{path} is encrypted; write it without a password")
    names = [entry.filename.casefold() if fold else entry.filename for entry in listed]
    times = Counter(names)
    twice = next((entry.filename for entry, name in zip(listed, names, strict=True) if times[name] > 1), None)
    if twice is not None:
        raise error(f"{path} holds {twice!r} twice, so that readers could see different files; write it again")
    return {entry.filename: entry for entry in listed}


def first_line(wrong: BaseException, *, named: bool = False) -> str:
    """What an exception of another library says, as `words`; `named`: behind its type."""
    kind, said = type(wrong).__name__, words(str(wrong))
    return f"{kind}: {said}" if named and said else said or kind


def words(text: str) -> str:
    """A text from elsewhere in one line, without escape codes, and not too long."""
    plain = "".join(c if c.isprintable() else " " for c in re.sub(r"\x1b\[[0-9;]*m", "", text))
    return " ".join(plain.split())[:200]


def size(number: float) -> str:
    """Bytes in words."""
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} GB" if number < 1000 else f"{number:,.0f} GB"


def _unpacked(path: Path, error: type[SartorError], most: int) -> bytes:
    bound = max(most, RATIO * path.stat().st_size)
    with gzip.open(path, "rb") as file:
        data = file.read(bound + 1)
    if len(data) > bound:
        raise error(
            f"{path} has {size(path.stat().st_size)} and unpacks to more than {size(bound)}; it is refused: write it "
            "again"
        )
    return data

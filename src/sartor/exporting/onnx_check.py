"""Which other files an ONNX file wants, found before a runtime opens it: weights may lie in files beside it only.

The file is walked through by the lengths in it, and its weights are passed over, so that a look takes no memory that a
measurement would count.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import onnx

from sartor.core.errors import TargetError

DEEP = 64
"""How deep messages may lie in each other: graphs in attributes of nodes in graphs."""

WORDS = 2**16
"""Bytes of an entry that names a file."""

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""How a field is stored: https://protobuf.dev/programming-guides/encoding/."""


def check_onnx(path: Path) -> None:
    """Refuse a file that wants files elsewhere than beside it.

    Raises:
        TargetError: It is not there, is no ONNX file, or names a file by an absolute path, in another folder, behind a
            link that leads out of the folder, or one that is not there.
    """
    if not path.is_file():
        raise TargetError(f"no file {path}; prepare the network first, or give the path of an .onnx file")
    wanted: set[str] = set()
    try:
        with path.open("rb") as file:
            wanted.update(_locations(file, onnx.ModelProto.DESCRIPTOR, os.fstat(file.fileno()).st_size, 0))
    except (ValueError, OSError) as error:
        raise TargetError(f"{path} is no ONNX model ({error}); export the network again") from error
    for location in sorted(wanted):
        reason = _wrong(path, location)
        if reason:
            raise TargetError(
                f"{path} wants weights in {location!r}, {reason}; it is refused before it is opened: put the weights "
                "into the file, or into one beside it"
            )


def _wrong(path: Path, location: str) -> str:
    """Why a file that a model wants is none beside it; "" if it is one."""
    if PurePosixPath(location).is_absolute() or location[1:2] == ":" or location.startswith("\\"):
        return "an absolute path"
    if ".." in location.replace("\\", "/").split("/") or "\0" in location:
        return "outside of its folder"
    found = path.parent / location
    if not found.resolve().is_relative_to(path.parent.resolve()):
        return "a link that leads out of its folder"
    return "" if found.is_file() else "where there is no file"


def _locations(file: IO[bytes], kind: Any, end: int, depth: int) -> Iterator[str]:
    """The locations of external data in a message of a kind, from here to `end`."""
    if depth > DEEP:
        raise ValueError("it is nested too deep")
    while (place := file.tell()) < end:
        key = _number(file)
        if key >> 3 == 0:
            raise ValueError(f"no field at byte {place}")
        if key & 7 != LENGTH:
            _pass(file, key & 7)
            continue
        length = _number(file)
        after = file.tell() + length
        if after > end:
            raise ValueError(f"it is cut off, or damaged at byte {place}")
        field = kind.fields_by_number.get(key >> 3)
        if field is not None and field.message_type is not None:
            yield from _within(file, field, after, depth)
        file.seek(after)


def _within(file: IO[bytes], field: Any, end: int, depth: int) -> Iterator[str]:
    """The locations in a field that is a message."""
    if field.name == "external_data":
        yield from _location(file.read(min(end - file.tell(), WORDS)))
    elif field.message_type.name != "StringStringEntryProto":
        yield from _locations(file, field.message_type, end, depth + 1)


def _location(data: bytes) -> Iterator[str]:
    try:
        entry = onnx.StringStringEntryProto.FromString(data)
    except Exception as error:  # the parser's own class, which differs between its versions
        raise ValueError("an entry of external data is damaged") from error
    if entry.key == "location":
        yield str(entry.value)


def _pass(file: IO[bytes], wire: int) -> None:
    if wire == VARINT:
        _number(file)
    elif wire in (FIXED64, FIXED32):
        file.seek(8 if wire == FIXED64 else 4, os.SEEK_CUR)
    else:
        raise ValueError(f"no field of kind {wire}")


def _number(file: IO[bytes]) -> int:
    """Seven bits a byte, the lowest first; the highest bit says that there is more."""
    found = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it is cut off")
        found |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return found
    raise ValueError("a number of it has no end")

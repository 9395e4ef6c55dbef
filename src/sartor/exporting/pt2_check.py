"""What in a `.pt2` file could run code, found before `torch.export.load` sees the file.

torch unpickles members that the archive's own index marks, tries pickled examples again without any limits if they are
not plain data, loads compiled libraries, evaluates the formulas of sizes as Python, writes guards and names into source
code that it compiles, and calls whatever function of `torch` a node names. An honest file of `torch.export.save` with
tensors needs none of that.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Mapping
from contextlib import nullcontext
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from sartor.core import foreign
from sartor.core.errors import TargetError
from sartor.exporting.pt2_source import is_formula, is_guard, is_operator, is_structure, is_word, tables, words

COMPILED = (".so", ".dll", ".dylib", ".pyd", ".o", ".a", ".cubin", ".hsaco", ".py", ".pyc")
PICKLED = (".pkl", ".pickle")
OBJECTS = ("custom_obj_", "opaque_obj_")
"""What torch calls the members that are objects, not tensors."""

RAW = re.compile(r"(weight|tensor)_\d+")
"""What torch calls the members that are the bytes of tensors; others it may read as something else."""

EMPTY = 2**20
"""Elements that a tensor without bytes in the file may claim."""


def check_pt2(path: Path) -> None:
    """Refuse a file that would run code, or fill the memory, when torch reads it.

    Raises:
        TargetError: It is damaged, or holds something that is no plain data; the message names the member.
    """
    listed = foreign.members(path, TargetError, fold=True)
    _refuse_two_readings(path, listed)
    with zipfile.ZipFile(path) as archive:
        raw: set[str] = set()
        for name in listed:
            if name.endswith(("weights_config.json", "constants_config.json")):
                raw |= _raw_tensors(path, name, archive)
        for name in listed:
            if name not in raw:
                _check_member(path, name, archive)


def _refuse_two_readings(path: Path, listed: Mapping[str, zipfile.ZipInfo]) -> None:
    """Python's reader of archives and torch's own must see the same members."""
    try:
        reader = torch._C.PyTorchFileReader(str(path))
        seen = {name: reader.get_record_size(name) for name in reader.get_all_records()}
    except Exception:  # noqa: BLE001 - the layout before torch 2.8, which torch reads with zipfile alone
        return
    root = next(iter(listed)).partition("/")[0] if listed else ""
    found = {n.removeprefix(f"{root}/"): e.file_size for n, e in listed.items() if not n.endswith("/")}
    if {name: number for name, number in seen.items() if found.get(name) != number}:
        raise TargetError(f"{path} is an archive that two readers see differently; write it again with sartor export")


def _raw_tensors(path: Path, config: str, archive: zipfile.ZipFile) -> set[str]:
    """The members that torch reads as the bytes of tensors, by a table of weights or constants."""
    where = f"{config!r} in {path}"
    table = foreign.from_json(_bytes(path, config, archive), where, TargetError)
    entries = table.get("config") if isinstance(table, dict) else None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise TargetError(f"{where} is no table of tensors; write the file again")
    folder = PurePosixPath(config).parent
    found = set()
    for name, entry in entries.items():
        member = str(entry.get("path_name", ""))
        if entry.get("use_pickle") is not False or not RAW.fullmatch(member):
            raise _refused(path, f"{name!r} as a pickle", "which runs code when it is read")
        _check_size(path, name, entry, archive, str(folder / member))
        found.add(str(folder / member))
    return found


def _check_size(path: Path, name: str, entry: Mapping[str, Any], archive: zipfile.ZipFile, member: str) -> None:
    sizes = (entry.get("tensor_meta") or {}).get("sizes") or []
    claimed = prod(abs(int(s.get("as_int") or 0)) for s in sizes if isinstance(s, dict))
    try:
        stored = archive.getinfo(member).file_size
    except KeyError as error:
        raise TargetError(f"{path} lacks {member!r}, the values of {name!r}; write the file again") from error
    if not stored and claimed > EMPTY:
        raise TargetError(f"{path} holds no values for {name!r}, which claims {claimed:,}; write the file again")


def _check_member(path: Path, name: str, archive: zipfile.ZipFile) -> None:
    base, suffix = PurePosixPath(name).name, PurePosixPath(name).suffix.lower()
    if "/aotinductor/" in f"/{name}" or suffix in COMPILED:
        raise _refused(path, f"{name!r}, compiled code", "which runs when it is read")
    if suffix in PICKLED or base.startswith(OBJECTS):
        raise _refused(path, f"{name!r}, a pickled object", "which runs code when it is read")
    data = _bytes(path, name, archive)
    if suffix in (".pt", ".pth") or data[:4] == b"PK\x03\x04":
        _check_plain(path, name, data)
    elif _is_pickle(data):
        raise _refused(path, f"{name!r}, a pickle", "which runs code when it is read")
    if name.partition("/")[2].startswith("models/") or base == "serialized_exported_program.json":
        _check_program(path, foreign.from_json(data, f"{name!r} in {path}", TargetError))


def _check_plain(path: Path, name: str, data: bytes) -> None:
    """What torch saved as a pickle must be what its reader of plain data takes: else it is read without that one."""
    if not data:
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) if data[:4] == b"PK\x03\x04" else nullcontext() as inner:
            unpacked = sum(entry.file_size for entry in inner.infolist()) if inner else 0
        bounded = unpacked <= max(foreign.ROOM, foreign.RATIO * len(data))
        plain = bounded and torch.load(io.BytesIO(data), map_location="cpu", weights_only=True) is not None
    except Exception:  # noqa: BLE001 - what torch.load raises on a foreign file is not documented
        plain = False
    if not plain:
        raise _refused(path, f"{name!r}, a pickle of more than tensors", "which runs code when it is read")


def _is_pickle(data: bytes) -> bool:
    """By its opcodes, up to the last one: text and numbers hardly ever are one by chance."""
    if len(data) < 2 or not data.rstrip(b"\0").endswith(b"."):
        return False
    try:
        return sum(1 for _ in pickletools.genops(data)) > 1
    except Exception:  # noqa: BLE001 - bytes that are no pickle fail in any way
        return False


def _check_program(path: Path, program: Any) -> None:
    for part in tables(program):
        _check_table(path, part)
    for key, text in words(program, ""):
        if not is_word(key, text):
            raise _refused(path, f"{text[:60]!r} as a {key or 'name'}", "which could be written into source code")


def _check_table(path: Path, part: Mapping[str, Any]) -> None:
    target = part.get("target")
    if isinstance(target, str) and "inputs" in part and not is_operator(target):
        raise _refused(path, f"a call of {target!r}", "which is no operator of a network")
    formula = part.get("expr_str")
    if formula is not None and not is_formula(formula):
        raise _refused(path, f"the formula {str(formula)[:60]!r}", "which is evaluated as Python")
    for guard in part.get("guards_code") or ():
        if not is_guard(guard):
            raise _refused(path, f"the guard {str(guard)[:60]!r}", "which is written into source code")
    for key in ("in_spec", "out_spec"):
        if part.get(key) and not is_structure(part[key]):
            raise _refused(path, f"a structure {key!r} that imports a module", "which runs its code")


def _bytes(path: Path, name: str, archive: zipfile.ZipFile) -> bytes:
    try:
        return archive.read(name)
    except Exception as error:  # a damaged member: what zipfile raises then is not documented
        raise TargetError(f"{path} is damaged at {name!r} ({foreign.first_line(error)}); write it again") from error


def _refused(path: Path, what: str, why: str) -> TargetError:
    return TargetError(
        f"{path} holds {what}, {why}, and is refused before torch reads it; export the network from its own code again "
        "(torch.export.save, sartor export)"
    )

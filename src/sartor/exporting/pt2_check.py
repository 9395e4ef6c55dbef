"""What in a `.pt2` file could run code, found before `torch.export.load` sees the file.

torch unpickles members that the archive's own index marks, tries pickled examples again without any limits if they are
not plain data, loads compiled libraries, evaluates the formulas of sizes as Python, writes guards and names into source
code that it compiles, and calls whatever function of `torch` a node names. An honest file of `torch.export.save` with
tensors needs none of that.
"""

from __future__ import annotations

import ast
import io
import json
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from sartor.core import foreign
from sartor.core.errors import TargetError

COMPILED = (".so", ".dll", ".dylib", ".pyd", ".o", ".a", ".cubin", ".hsaco", ".py", ".pyc")
PICKLED = (".pkl", ".pickle")
OBJECTS = ("custom_obj_", "opaque_obj_")
"""What torch calls the members that are objects, not tensors."""

OPERATORS = re.compile(
    r"torch\.ops\.(?!load_library\b|import_module\b|loaded_libraries\b)\w+\.(?!from_file\b|save\b|load\b)\w+(\.\w+)?"
    r"|torch\._?sym_\w+"
    r"|math\.[a-z0-9]+"
    r"|_operator\.(abs|add|and_|eq|floordiv|ge|getitem|gt|index|inv|invert|is_|is_not|le|lshift|lt|matmul|mod|mul|ne|neg"
    r"|not_|or_|pos|pow|rshift|sub|truediv|truth|xor)"
)
"""What a node may call: registered operators, and arithmetic of sizes."""

FORMULAS = re.compile(
    r"Abs|Add|And|CeilDiv|CeilToInt|CleanDiv|Equality|FloatPow|FloatTrueDiv|FloorDiv|FloorToInt|"
    r"GreaterThan|Identity|IntTrueDiv|Integer|IsNonOverlappingAndDenseIndicator|LShift|LessThan|Max|Min|"
    r"Mod|ModularIndexing|Mul|Not|Or|Piecewise|Pow|PowByNatural|PythonMod|RShift|Rational|RoundDecimal|"
    r"RoundToInt|StrictGreaterThan|StrictLessThan|ToFloat|TruncToFloat|TruncToInt|Tuple|Unequality|Where|"
    r"ceiling|floor|sqrt|Eq|Ge|Gt|Le|Lt|Ne|ExprCondPair"
)
"""Functions that a formula of sizes may hold."""

NAMED = frozenset({"Symbol", "Float", "Dummy"})
"""Functions of a formula that take a word, which they do not evaluate; all others would."""

ARITHMETIC = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.Name, ast.Constant, ast.Tuple),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.Load, ast.keyword),
)
LONG = 10_000
"""Characters of a formula."""

PLAIN = re.compile(r"[^'\"\\`\x00-\x1f\x7f]*")
"""What cannot end a string in source code."""

IDENTIFIER = re.compile(r"([^\W\d]\w*)?")
NAMES = ("name", "as_name", "forward_arg_names")
"""Fields that become names in source code."""

CHECKED_APART = ("expr_str", "guards_code", "in_spec", "out_spec")

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
        if entry.get("use_pickle") is not False or member.startswith(OBJECTS):
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


def _tables(value: Any) -> Iterator[Mapping[str, Any]]:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _check_program(path: Path, program: Any) -> None:
    for part in _tables(program):
        _check_table(path, part)
    for key, text in _words(program, ""):
        wanted = IDENTIFIER if key in NAMES else PLAIN
        if key not in CHECKED_APART and not wanted.fullmatch(text):
            raise _refused(path, f"{text[:60]!r} as a {key or 'name'}", "which could be written into source code")


def _words(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every string with the name of the field that it is in, and every name of a field; not the remarks of nodes."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for part in value:
            yield from _words(part, key)
    elif isinstance(value, dict):
        for name, part in value.items():
            yield "", name
            if name != "metadata":
                yield from _words(part, name)


def _check_table(path: Path, part: Mapping[str, Any]) -> None:
    target = part.get("target")
    if isinstance(target, str) and "inputs" in part and not OPERATORS.fullmatch(target):
        raise _refused(path, f"a call of {target!r}", "which is no operator of a network")
    formula = part.get("expr_str")
    if formula is not None and not _is_formula(formula):
        raise _refused(path, f"the formula {str(formula)[:60]!r}", "which is evaluated as Python")
    for guard in part.get("guards_code") or ():
        if not _is_guard(guard):
            raise _refused(path, f"the guard {str(guard)[:60]!r}", "which is written into source code")
    for key in ("in_spec", "out_spec"):
        if part.get(key) and not _is_structure(part[key]):
            raise _refused(path, f"a structure {key!r} that imports a module", "which runs its code")


def _is_structure(text: object) -> bool:
    """Whether it describes lists, tuples, dicts and the like: torch imports what fills a defaultdict, and enums."""
    try:
        _, tree = json.loads(str(text))
        nodes = [node for node in _tables(tree) if "type" in node]
        contexts = [json.loads(node["context"]) for node in nodes if isinstance(node.get("context"), str)]
    except (ValueError, TypeError, RecursionError):
        return False
    plain = all("defaultdict" not in str(node["type"]) for node in nodes)
    quiet = all(PLAIN.fullmatch(text) for context in contexts for _, text in _words(context, ""))
    return plain and quiet and not any(True for context in contexts for _ in _tables(context))


def _is_formula(text: object) -> bool:
    """Whether it is arithmetic of names and numbers, in the functions that torch writes."""
    if not isinstance(text, str) or len(text) > LONG:
        return False
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    words = {id(arg) for call in calls if _name(call) in NAMED for arg in call.args}
    functions = {id(call.func) for call in calls}
    return (
        all(isinstance(node, ARITHMETIC) for node in nodes)
        and all(_name(call) in NAMED or FORMULAS.fullmatch(_name(call)) for call in calls)
        and all(isinstance(n.value, ast.Constant) for n in nodes if isinstance(n, ast.keyword))
        and all(_is_number(n) or id(n) in words for n in nodes if isinstance(n, ast.Constant))
        and all(n.id.isalnum() for n in nodes if isinstance(n, ast.Name) and id(n) not in functions)
    )


def _is_guard(text: object) -> bool:
    """Whether it compares sizes of the inputs, `L['x'].size()[0]`, with arithmetic."""
    if not isinstance(text, str) or len(text) > LONG or not re.fullmatch(r"[^#\\\n\r]*", text):
        return False
    try:
        return _compares(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _compares(node: ast.expr) -> bool:  # noqa: C901, PLR0911 - a flat table of forms reads best
    match node:
        case ast.Constant():
            return _is_number(node)
        case ast.Name():
            return node.id in ("inf", "math", "True", "False")
        case ast.Subscript(value=ast.Name(id="L")) | ast.Subscript(value=ast.Subscript()):
            return _is_place(node)
        case ast.Subscript(value=ast.Call() as value, slice=ast.Constant() as place):
            return _compares(value) and _is_number(place)
        case ast.Call(func=ast.Attribute(value=value, attr="size" | "stride" | "storage_offset" | "dim"), args=args):
            return not node.keywords and _is_place(value) and all(map(_compares, args))
        case ast.Call(func=function, args=args):
            return not node.keywords and _is_arithmetic(ast.unparse(function)) and all(map(_compares, args))
        case ast.Attribute(value=ast.Name(id="math")):
            return node.attr.isalnum()
        case ast.BinOp() | ast.UnaryOp() | ast.BoolOp() | ast.Compare():
            return all(_compares(below) for below in ast.iter_child_nodes(node) if isinstance(below, ast.expr))
    return False


def _is_place(node: ast.expr) -> bool:
    """`L['x']`, `L['x'][0]['y']`: an input."""
    while isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        key = node.slice.value
        if not isinstance(key, int) and not (isinstance(key, str) and PLAIN.fullmatch(key)):
            return False
        node = node.value
    return isinstance(node, ast.Name) and node.id == "L"


def _is_arithmetic(name: str) -> bool:
    return bool(FORMULAS.fullmatch(name) or re.fullmatch(r"torch\._?sym_\w+|math\.[a-z0-9]+|TrueDiv|Int", name))


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _is_number(node: ast.Constant) -> bool:
    return isinstance(node.value, bool | int | float)


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

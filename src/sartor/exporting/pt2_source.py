"""What of a `.pt2` program torch writes into source code, evaluates or calls: whether it is no more than arithmetic.

Formulas of sizes go through sympy, which evaluates Python; guards and names become source code that is compiled; a node
calls whatever `torch` has under the name of its target.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

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


def is_operator(target: str) -> bool:
    """Whether a node may call it."""
    return bool(OPERATORS.fullmatch(target))


def is_word(key: str, text: str) -> bool:
    """Whether a string in a field called `key` can be nothing but a string, or a name where it becomes one."""
    if key in CHECKED_APART:
        return True
    return bool((IDENTIFIER if key in NAMES else PLAIN).fullmatch(text))


def tables(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping in a value of JSON, however deep."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def words(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every string with the name of the field that it is in, and every name of a field; not the remarks of nodes."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for part in value:
            yield from words(part, key)
    elif isinstance(value, dict):
        for name, part in value.items():
            yield "", name
            if name != "metadata":
                yield from words(part, name)


def is_structure(text: object) -> bool:
    """Whether it describes lists, tuples, dicts and the like: torch imports what fills a defaultdict, and enums."""
    try:
        _, tree = json.loads(str(text))
        nodes = [node for node in tables(tree) if "type" in node]
        contexts = [json.loads(node["context"]) for node in nodes if isinstance(node.get("context"), str)]
    except (ValueError, TypeError, RecursionError):
        return False
    plain = all("defaultdict" not in str(node["type"]) for node in nodes)
    quiet = all(PLAIN.fullmatch(text) for context in contexts for _, text in words(context, ""))
    return plain and quiet and not any(True for context in contexts for _ in tables(context))


def is_formula(text: object) -> bool:
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


def is_guard(text: object) -> bool:
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

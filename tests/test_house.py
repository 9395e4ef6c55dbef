"""Counts that say whether the house has a spine: what they bound grows unnoticed, one exception at a time.

That one place opens sessions and interleaves them: `contracts/test_timing.py`.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import sartor
from sartor.core import plugins

SOURCE = Path(sartor.__file__).parent
TREES = {p.relative_to(SOURCE): ast.parse(p.read_text(encoding="utf-8")) for p in SOURCE.rglob("*.py")}
JOBS = {path: tree for path, tree in TREES.items() if path.parts[0] == "jobs"}
KINDS = ("costs", "evaluators", "spaces", "strategies", "targets")
DEFAULTS = {"train", "random_search", "uniform_width", "local_search", "autoslim"}
"""What a job itself starts: the default of a setting, and the baselines."""


def naming(tree: ast.AST, name: str) -> bool:
    """As a string, an attribute or a key, not in a sentence."""
    return any(
        (isinstance(n, ast.Constant) and n.value == name)
        or (isinstance(n, ast.Attribute) and n.attr in (name, f"{name[:-1]}ies"))
        or (isinstance(n, ast.keyword) and n.arg == name)
        for n in ast.walk(tree)
    )


def untyped(tree: ast.AST) -> int:
    """How many dicts and mappings say nothing of what is in them."""
    kinds = ("dict[str, Any]", "Mapping[str, Any]")
    return sum(isinstance(n, ast.Subscript) and ast.unparse(n) in kinds for n in ast.walk(tree))


def protocols(tree: ast.AST) -> int:
    classes = (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef))
    return sum("Protocol" in {ast.unparse(b).partition("[")[0] for b in c.bases} for c in classes)


def named(tree: ast.AST, names: set[str]) -> set[str]:
    return {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and n.value in names}


def settings() -> Iterator[tuple[str, int]]:
    """How many settings every plug-in has, beside the problem and the seed that a strategy is given."""
    for kind in KINDS:
        for name in plugins.names(kind):
            given = inspect.signature(plugins.load(kind, name)).parameters.values()
            yield f"{kind}.{name}", sum(p.kind is p.KEYWORD_ONLY for p in given)


def test_accuracy_is_one_metric_of_many():
    found = sorted(path.as_posix() for path, tree in TREES.items() if naming(tree, "accuracy"))
    assert "data/quality.py" in found
    assert len(found) <= 4, found


def test_jobs_pass_typed_values():
    found = {path.as_posix(): untyped(tree) for path, tree in JOBS.items()}
    assert sum(found.values()) <= 40, found


def test_few_protocols():
    assert 8 < sum(protocols(tree) for path, tree in TREES.items() if path.parts[0] == "core") <= 13


def test_jobs_know_no_plugin_by_name():
    names = {name for kind in ("strategies", "evaluators") for name in plugins.names(kind)} - DEFAULTS
    assert {"darts", "inherited"} <= names
    assert not {path.as_posix(): found for path, tree in JOBS.items() if (found := named(tree, names))}


def test_jobs_lie_by_journey():
    assert len([path for path in JOBS if len(path.parts) == 2]) <= 9
    assert {"fit", "compare", "measure"} <= {path.parts[1] for path in JOBS}


@pytest.mark.parametrize(("plugin", "count"), settings())
def test_settings_are_grouped(plugin, count):
    assert count <= 15, f"{plugin} has {count} settings; put those that belong together into one table of their own"


@pytest.mark.parametrize(
    ("count", "source", "found"),
    [
        (lambda t: naming(t, "accuracy"), "x['accuracy']", True),
        (lambda t: naming(t, "accuracy"), "x.accuracies", True),
        (lambda t: naming(t, "accuracy"), "f(accuracy=1)", True),
        (lambda t: naming(t, "accuracy"), "'the accuracy of it'", False),
        (untyped, "def f(a: dict[str, Any], b: dict[str, int]) -> Mapping[str, Any]: ...", 2),
        (protocols, "class A(Protocol): ...\nclass B(Protocol[T]): ...\nclass C(A): ...", 2),
        (lambda t: named(t, {"darts"}), "if x == 'darts': 'darts!'", {"darts"}),
    ],
)
def test_the_counts_count(count, source, found):
    assert count(ast.parse(source)) == found

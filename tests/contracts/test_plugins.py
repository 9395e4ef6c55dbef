"""Rules for every module of every plug-in package."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from sartor.core import plugins
from sartor.core.contracts import CostModel, Evaluator, Space, Strategy, Target, Task
from sartor.core.errors import ConfigError

# Kind -> how many there are at least, the positional arguments, and what a plug-in is or returns.
KINDS = {
    "spaces": (3, (), Space),
    "costs": (3, ("space",), CostModel),
    "targets": (4, (), Target),
    "tasks": (3, (), Task),
    "evaluators": (3, ("problem",), Evaluator),
    "strategies": (5, ("problem", "seed"), Strategy),
}
PLUGINS = [(k, n) for k in KINDS for n in plugins.names(k)]
each = pytest.mark.parametrize(("kind", "name"), PLUGINS, ids=[f"{k}-{n}" for k, n in PLUGINS])


def settings(plugin):
    parameters = list(inspect.signature(plugin).parameters.values())
    return [p for p in parameters if p.kind is p.KEYWORD_ONLY]


@pytest.mark.parametrize("kind", KINDS)
def test_the_list_is_not_silently_short(kind):
    assert len(plugins.names(kind)) >= KINDS[kind][0]


MOST = 15


@pytest.mark.parametrize("name", plugins.names("strategies"))
def test_a_strategy_has_few_settings(name):
    """More of them are grouped: a frozen dataclass is a table of the config."""
    found = settings(plugins.load("strategies", name))
    assert len(found) <= MOST, f"{name} has {len(found)} settings; group some in a frozen dataclass"
    for group in (p.default for p in found if is_dataclass(p.default)):
        assert type(group).__dataclass_params__.frozen
        assert len(fields(group)) <= MOST


@each
def test_module_offers_one_documented_final_plugin(kind, name):
    module = importlib.import_module(f"sartor.{kind}.{name}")
    plugin = plugins.load(kind, name)
    assert module.__doc__
    assert module.__doc__.splitlines()[0].strip().endswith((".", ":"))
    assert len(module.__all__) == 1
    assert plugin.__module__ == module.__name__
    assert plugin.__doc__
    if not inspect.isclass(plugin):
        assert kind == "tasks"
        assert plugin.__name__ == name
        return
    assert issubclass(plugin, KINDS[kind][2])
    assert not inspect.isabstract(plugin)
    assert plugin.__name__.lower() == name.replace("_", "")
    assert not [
        c for c in plugin.__mro__[1:] if c.__module__.startswith(f"sartor.{kind}.") and not inspect.isabstract(c)
    ]


@each
def test_the_constructor_is_the_config_schema(kind, name):
    """Fixed positional arguments; every setting keyword-only, typed, with a default, and documented under Args."""
    plugin = plugins.load(kind, name)
    parameters = list(inspect.signature(plugin).parameters.values())
    fixed = tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
    assert fixed == KINDS[kind][1]
    for p in settings(plugin):
        assert p.default is not p.empty, p.name
        assert p.annotation is not p.empty, p.name
        assert re.search(rf"^\s*{p.name}\b[^:\n]*:", inspect.getdoc(plugin), re.MULTILINE), (
            f"{p.name} is not documented"
        )


@each
def test_a_plugin_imports_no_other_plugin(kind, name):
    """Helpers of the same kind, whose names start with an underscore, are allowed."""
    source = Path(importlib.import_module(f"sartor.{kind}.{name}").__file__).read_text(encoding="utf-8")
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            imported |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    assert not imported & {f"sartor.{k}.{n}" for k, n in PLUGINS}
    assert not [m for m in imported if re.match(rf"sartor\.(?!{kind}\.)\w+\._", m)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_near_miss_gets_a_suggestion(kind):
    name = plugins.names(kind)[0]
    with pytest.raises(ConfigError, match=re.escape(repr(name))):
        plugins.load(kind, name[:-1] + "_x" if len(name) > 3 else name + "x")

"""Build objects from TOML tables by matching keys to constructor arguments."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import itertools
import json
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from sartor import recipes
from sartor.core import foreign, named_code, plugins
from sartor.core.errors import ConfigError

TABLES = (
    "space",
    "task",
    "target",
    "budget",
    "strategy",
    "evaluator",
    "latency_model",
    "training",
    "verification",
    "export",
    "limits",
    "workers",
)
"""The tables of a config, beside the keys `seed` and `title`."""

Table: TypeAlias = Mapping[str, Any]
"""A table of a config: settings by name, or tables by name; checked against the constructor that takes them."""

UNIONS = (types.UnionType, typing.Union)
SEQUENCES = (tuple, list, Sequence)


def build(kind: str, table: Mapping[str, Any], *args: Any) -> Any:
    """`{name = "aows", epochs = 8}` becomes `Aows(*args, epochs=8)`.

    Raises:
        ConfigError: The plug-in or a setting is unknown, or a value has the wrong type; says what was meant, perhaps.
    """
    settings = dict(table)
    name = name_of(kind, settings)
    del settings["name"]
    return call(plugins.load(kind, name), settings, *args)


def name_of(kind: str, table: Mapping[str, Any]) -> str:
    """The name of the plug-in that a table is for.

    Raises:
        ConfigError: There is none, or it is no string.
    """
    one = kind if kind in TABLES else f"{kind[:-3]}y" if kind.endswith("ies") else kind.removesuffix("s")
    if "name" not in table:
        raise ConfigError(f"[{one}] has no name; known: {', '.join(plugins.names(kind))}")
    name = table["name"]
    if not isinstance(name, str):
        raise ConfigError(f"[{one}] name must be a string, got {name!r}; known: {', '.join(plugins.names(kind))}")
    return name


def call(constructor: Any, settings: Mapping[str, Any], *args: Any) -> Any:
    """`constructor(*args, **settings)` after checking the settings' names and types; tables become dataclasses."""
    hints = validate(constructor, settings)
    return constructor(*args, **{k: _converted(v, hints.get(k)) for k, v in settings.items()})


def validate(constructor: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Check the settings' names and types; the type hints, for whoever converts.

    Raises:
        ConfigError: Says which setting of what, and what it takes.
    """
    label = getattr(constructor, "__name__", str(constructor))
    hints = _hints(constructor)
    known = keywords(constructor)
    for key, value in settings.items():
        if key not in known:
            raise ConfigError(f"{label} has no setting {key!r}; {_hint(key, known)}")
        group = _group(hints.get(key))
        if group is not None and isinstance(value, Mapping):
            validate(group, value)
        elif key in hints and not _fits(value, hints[key]):
            raise ConfigError(f"{label}.{key} must be {_words(hints[key])}, got {value!r}")
    return hints


def _group(hint: Any) -> type[Any] | None:
    """The dataclass that a table of settings becomes, if the hint is one, or one or nothing."""
    options = typing.get_args(hint) if typing.get_origin(hint) in UNIONS else (hint,)
    return next((a for a in options if inspect.isclass(a) and dataclasses.is_dataclass(a)), None)


def keywords(constructor: Any) -> list[str]:
    """The settings that a constructor takes: keyword-only ones, or the fields of a dataclass."""
    if dataclasses.is_dataclass(constructor):
        return [f.name for f in dataclasses.fields(constructor)]
    return [p.name for p in inspect.signature(constructor).parameters.values() if p.kind is p.KEYWORD_ONLY]


def read(path: Path) -> dict[str, Any]:
    """A config file.

    Raises:
        ConfigError: It does not exist, is not TOML, or has an unknown table.
    """
    if not path.exists():
        raise ConfigError(f"no config at {path}; write one, or run without for the packaged recipe")
    config = foreign.from_toml(foreign.content(path, ConfigError, most=foreign.SETTINGS), str(path), ConfigError)
    check(config)
    return config


def asked(recipe: str | Path, assignments: Sequence[str] = (), *, trust_code: bool = False) -> dict[str, Any]:
    """The tables of a recipe with assignments over them, as a command takes them.

    Args:
        recipe: A packaged one, or a file.
        assignments: See `override`; code that they name is what the user has typed.
        trust_code: Whether code that the file names may be run, wherever the file is.

    Raises:
        ConfigError: As `read` and `override`; or the file is in another folder than the command was started in, and
            names code that is not installed.
    """
    path = recipes.find(recipe)
    base = read(path)
    settings = override(base, assignments)
    if trust_code or str(recipe) in recipes.names() or path.resolve().parent == Path.cwd().resolve():
        return settings
    typed = set(named_code.named(assigned(base, assignments)))
    for code in named_code.named(settings):
        place = named_code.origin(code) if code not in typed else None
        if place is not None:
            place = place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place
            raise ConfigError(
                f"{path} is in another folder and names code that is not installed, {code} (in {place}); look at both, "
                "and agree with --trust-code"
            )
    return settings


def check(config: Mapping[str, Any]) -> None:
    """Only known tables, each a table."""
    known = ("seed", "title", *TABLES)
    for key, value in config.items():
        if key not in known:
            raise ConfigError(f"a config has no {key!r}; {_hint(key, known)}")
        if key in TABLES and not isinstance(value, Mapping):
            raise ConfigError(f"{key} must be a table, as in [{key}] name = ..., got {value!r}")
    if not _fits(config.get("seed", 0), int):
        raise ConfigError(f"seed must be a whole number, got {config['seed']!r}")


def override(config: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply `strategy.epochs=20` and the like, merged over `config`; values are TOML, bare words are strings.

    A budget that is set replaces the config's: who asks for MACs does not want the recipe's milliseconds as well.
    """
    top = assigned(config, assignments)
    result = merge(config, top)
    if "budget" in top:
        result["budget"] = top["budget"]
    check(result)
    return result


def assigned(config: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """The tables that assignments make.

    Raises:
        ConfigError: One has no key or no value, or takes for a table what is none here or in `config`.
    """
    top: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        *tables, last = names = [name.strip() for name in key.split(".")]
        if not equals or not all(names):
            raise ConfigError(f"--set takes key=value, as in strategy.epochs=20; got {assignment!r}")
        below: Any = config
        table = top
        for name in tables:
            table = table.setdefault(name, {})
            below = below.get(name, {})
            if not isinstance(table, dict) or not isinstance(below, Mapping):
                raise ConfigError(f"--set {assignment}: {name} is not a table")
        table[last] = _value(text.strip())
    return top


def shortcuts(
    *,
    network: str | None = None,
    weights: str | None = None,
    data: str | None = None,
    budget: Sequence[str] = (),
    target: str | None = None,
    strategy: str | None = None,
) -> list[str]:
    """What is asked for oftenest, as assignments for `override`.

    Args:
        network: Its widths are the space.
        weights: File with its trained weights.
        data: `TASK:PLACE` (`image_folder:photos`, `arrays:train.npz,test.npz`), or the name of a task that needs none.
        budget: `METRIC=BOUND`, where the bound is a number, a percentage, or several with commas between.
        target: Its name.
        strategy: Its name.

    Raises:
        ConfigError: A budget has no bound, or the data cannot be named like that.
    """
    found = [] if network is None else ["space.name=widths", f"space.network={json.dumps(network)}"]
    found += [] if weights is None else [f"space.weights={json.dumps(weights)}"]
    found += [] if data is None else _data(data)
    for bound in budget:
        metric, equals, value = bound.partition("=")
        if not equals or not value:
            raise ConfigError(f"--budget takes METRIC=BOUND, as in latency_ms=5 or macs=50%; got {bound!r}")
        values = [v.strip() for v in value.split(",")]
        plain = [v if _is_number(v) else json.dumps(v) for v in values]
        found.append(f"budget.{metric.strip()}={plain[0] if len(plain) == 1 else '[' + ', '.join(plain) + ']'}")
    found += [] if target is None else [f"target.name={json.dumps(target)}"]
    return found + ([] if strategy is None else [f"strategy.name={json.dumps(strategy)}"])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _data(text: str) -> list[str]:
    """`TASK` or `TASK:PLACE,PLACE`: places are the first settings of the task that take text, in order."""
    name, colon, places = text.partition(":")
    found = [f"task.name={json.dumps(name)}"]
    if not colon:
        return found
    settings = _texts(plugins.load("tasks", name))
    given = places.split(",") if places else []
    if not given or len(given) > len(settings):
        takes = f"{name}:{','.join(s.upper() for s in settings[:2])}" if settings else f"{name} alone"
        raise ConfigError(f"--data {text!r} has {len(given)} places; it takes {takes}")
    return [*found, *(f"task.{s}={json.dumps(p)}" for s, p in zip(settings, given, strict=False))]


def _texts(constructor: Any) -> list[str]:
    """The settings at the beginning that take a path or a name."""
    hints = _hints(constructor)
    return list(itertools.takewhile(lambda name: _fits("", hints.get(name)), keywords(constructor)))


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`top` over `base`, table by table; a table that names another plug-in replaces the whole table."""
    merged = {k: merge(v, {}) if isinstance(v, Mapping) else v for k, v in base.items()}
    for key, value in top.items():
        below = merged.get(key)
        if not isinstance(value, Mapping):
            merged[key] = value
        elif isinstance(below, Mapping) and value.get("name", below.get("name")) == below.get("name"):
            merged[key] = merge(below, value)
        else:
            merged[key] = merge(value, {})
    return merged


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _hint(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known) or 'none'}"


def _hints(constructor: Any) -> dict[str, Any]:
    function = constructor.__init__ if inspect.isclass(constructor) else constructor
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # a name only known to type checkers: no check
        return {}


def _fits(value: Any, hint: Any) -> bool:  # noqa: C901, PLR0911 - a flat table of types reads best
    origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    if hint is None or hint is type(None):
        return value is None
    if origin in UNIONS:
        return any(_fits(value, a) for a in args)
    if origin is typing.Literal:
        return any(value == a and type(value) is type(a) for a in args)
    if origin in SEQUENCES:
        return isinstance(value, list | tuple) and _items_fit(value, hint)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is Path:
        return isinstance(value, str | Path)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return True  # `validate` looks inside
    return not inspect.isclass(hint) or isinstance(value, hint)


def _items_fit(value: Sequence[Any], hint: Any) -> bool:
    inner = _inner(hint, len(value))
    return len(inner) == len(value) and all(map(_fits, value, inner))


def _inner(hint: Any, length: int) -> Sequence[Any]:
    """The hints of a sequence's items: as many as there are items, unless the hint fixes their number."""
    args = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and args[-1:] != (...,):
        return args
    return [args[0] if args else Any] * length


def _converted(value: Any, hint: Any) -> Any:
    """Lists of TOML become the tuples that frozen settings want, strings paths and tables dataclasses by the hint."""
    origin = typing.get_origin(hint) or hint
    if origin in UNIONS:
        return _converted(value, next((a for a in typing.get_args(hint) if _fits(value, a)), Any))
    if origin in SEQUENCES and isinstance(value, list | tuple):
        items = map(_converted, value, _inner(hint, len(value)))
        return tuple(items) if origin is tuple else list(items)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return call(hint, value)
    return Path(value) if hint is Path else value


def _words(hint: Any) -> str:
    origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, args))
    if origin in UNIONS:  # None cannot be written in TOML: leave the key out
        return " or ".join(_words(a) for a in args if a is not type(None))
    if origin in SEQUENCES:
        homogenous = not args or origin is not tuple or args[-1] is ...
        return f"a list, each item {_words(args[0])}" if args and homogenous else _list_words(args)
    if dataclasses.is_dataclass(hint):
        return f"a table of {', '.join(keywords(hint))}"
    names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", Path: "a path"}
    return names.get(hint, str(getattr(hint, "__name__", hint)).replace("typing.", ""))


def _list_words(args: Sequence[Any]) -> str:
    return f"a list of {len(args)}: {', '.join(map(_words, args))}" if args else "a list"

"""Code that a config names as `module:attribute`: which, where it would come from, and whether it is installed."""

from __future__ import annotations

import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

CODE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
PUBLISHED = ("torchvision", "timm")
"""Names of networks begin with these and a colon: a name of a list, no code of one's own."""


def named(value: Any) -> Iterator[str]:
    """Every `module:attribute` among the values of tables, in their order."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from named(part)
    elif isinstance(value, str) and CODE.fullmatch(value) and value.partition(":")[0] not in PUBLISHED:
        yield value


def origin(code: str) -> Path | None:
    """Where the module of `module:attribute` would come from, if that is no installed one; nothing is imported.

    Returns:
        A file or folder; None if Python brings it, a package manager has installed it, or it is not there.
    """
    name = code.partition(":")[0].partition(".")[0]
    if name in sys.builtin_module_names:
        return None
    found = PathFinder.find_spec(name, [str(Path.cwd()), *sys.path])  # where networks and plug-ins are looked for
    place = _place(found)
    if place is None:
        return None
    paths = sysconfig.get_paths()
    roots = [Path(paths[key]).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    return None if any(place.resolve().is_relative_to(root) for root in roots) else place


def _place(found: ModuleSpec | None) -> Path | None:
    if found is None:
        return None
    if found.origin is not None:
        return Path(found.origin)
    return next((Path(place) for place in found.submodule_search_locations or ()), None)

"""Every third-party module that the package imports is declared, so that a fresh environment has it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE_OF = {"sklearn": "scikit-learn", "PIL": "pillow", "lightning_fabric": "lightning-fabric", "yaml": "pyyaml"}
BROUGHT = {"pillow": "torchvision", "timm": "asked for by name only, with its own message"}


def imported():
    found = {}
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                found.setdefault(name.split(".")[0], path.name)
    return {n: p for n, p in found.items() if n not in sys.stdlib_module_names and n != "sartor"}


def declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(x for extra in project["optional-dependencies"].values() for x in extra)]
    return {re.split(r"[\[<>=;~! ]", line)[0].lower() for line in lines}


def test_every_import_is_declared():
    modules = imported()
    assert len(modules) >= 10
    known = declared() | set(BROUGHT)
    missing = {m: p for m, p in modules.items() if PACKAGE_OF.get(m, m.replace("_", "-")).lower() not in known}
    assert not missing

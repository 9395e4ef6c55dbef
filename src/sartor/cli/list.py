"""List the plug-ins: spaces, strategies, targets, tasks, costs, evaluators, workers, and the packaged recipes."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from sartor import recipes
from sartor.core.errors import ConfigError
from sartor.core.plugins import names, purpose

KINDS = ("spaces", "strategies", "targets", "tasks", "costs", "evaluators", "workers")


def run(
    kind: Annotated[str | None, typer.Argument(help=f"One of {', '.join(KINDS)}, recipes; all if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print kind -> name -> purpose as JSON.")] = False,
) -> int:
    """List what can be named in a config, one line each, without importing it."""
    if kind is not None and kind not in (*KINDS, "recipes"):
        raise ConfigError(f"there is no kind {kind!r}; it is one of {', '.join(KINDS)}, recipes")
    kinds = [kind] if kind else [*KINDS, "recipes"]
    found = {k: _recipes() if k == "recipes" else {n: purpose(k, n) for n in names(k)} for k in kinds}
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return 0
    for k, entries in found.items():
        sys.stdout.write(f"{k}\n" if len(found) > 1 else "")
        for name, line in entries.items():
            sys.stdout.write(f"  {name:22s}{line}\n")
    return 0


def _recipes() -> dict[str, str]:
    """The first comment of each packaged recipe."""
    return {n: recipes.path(n).read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for n in recipes.names()}

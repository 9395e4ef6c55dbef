"""Trials of searches that have ended, as a start for another one on the same space."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sartor.core.contracts import Problem
from sartor.core.errors import ConfigError
from sartor.core.records import Arch, Choice, Trial


def earlier(folders: str | Sequence[str], problem: Problem, fidelity: float) -> list[Trial]:
    """The trials that succeeded at this fidelity, one per network, the last one.

    Args:
        folders: Run folders of `sartor search` or `sartor fit`; in one string with commas between them.
        problem: Whose space must have the same choices, and whose first objective the trials must know.
        fidelity: Only trials that were as long can be compared.

    Raises:
        ConfigError: A folder has no search that has ended, or it is of another space, task or fidelity.
    """
    names = [f.strip() for f in folders.split(",")] if isinstance(folders, str) else folders
    found: dict[Arch, Trial] = {}
    for folder in (Path(name).expanduser() for name in names if name):
        _check_choices(folder, _told(folder), problem.space.choices)
        trials = [t for t in _trials(folder / "search" / "journal.jsonl") if t.ok and t.fidelity == fidelity]
        metric = problem.objectives[0].metric
        if not trials:
            raise ConfigError(f"{folder} has no trials at fidelity {fidelity:g}; leave it out, or set its fidelity")
        if any(metric not in t.metrics for t in trials):
            known = ", ".join(trials[0].metrics)
            raise ConfigError(f"the trials of {folder} have no {metric}, only {known}; leave it out")
        found |= {arch: replace(t, arch=arch) for t in trials for arch in [problem.space.canonical(t.arch)]}
    return list(found.values())


def _told(folder: Path) -> list[dict[str, Any]]:
    """The choices that the result names."""
    for name in ("result.json", "search.json"):
        try:
            return list(json.loads((folder / name).read_text(encoding="utf-8"))["search"]["choices"])
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(f"{folder / name} is no result of a search ({error}); name a run folder") from error
    raise ConfigError(f"{folder} has no search that has ended; name the folder of one (it holds search.json)")


def _check_choices(folder: Path, theirs: Sequence[dict[str, Any]], ours: Sequence[Choice]) -> None:
    wrong = f"{folder} searched another space"
    if len(theirs) != len(ours):
        raise ConfigError(f"{wrong}: {len(theirs)} choices, here are {len(ours)}; leave it out")
    for i, (other, choice) in enumerate(zip(theirs, ours, strict=True)):
        if other["name"] != choice.name:
            raise ConfigError(f"{wrong}: choice {i} is {other['name']!r}, here it is {choice.name!r}; leave it out")
        if list(other["options"]) != list(choice.options):
            there, here = other["options"], list(choice.options)
            raise ConfigError(f"{wrong}: {choice.name!r} is one of {there}, here of {here}; leave it out")


def _trials(journal: Path) -> list[Trial]:
    """What stands in a journal, rewinds applied."""
    found: list[Trial] = []
    try:
        records = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
        for record in records:
            kind = record.pop("kind")
            if kind == "rewind":
                del found[record["to"] :]
            elif kind == "trial":
                found.append(Trial(**{**record, "arch": tuple(record["arch"])}))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{journal} is no journal of a search ({error}); restore it, or leave it out") from error
    return found

"""What a number of multiply-adds leaves out, in lines for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = 3
"""Layers that are named; the JSON has all."""
_WORDS = {
    "activations": "{macs} multiply-adds of two activations",
    "lookup": "{params} parameters that are looked up",
    "work": "the work of {operator}",
    "unknown": "{params} parameters of {operator}, which sartor does not know",
}


def lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line per kind of what is not counted.

    Args:
        found: Entries with `layer`, `operator`, `why`, `macs`, `params`.
    """
    kinds: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for entry in found:
        kinds[entry["why"], entry["operator"] if entry["why"] in ("work", "unknown") else ""].append(entry)
    return [_line(why, entries) for (why, _), entries in kinds.items()]


def _line(why: str, entries: Sequence[Mapping[str, Any]]) -> str:
    macs, params = (sum(entry[key] for entry in entries) for key in ("macs", "params"))
    layers = list(dict.fromkeys(entry["layer"] or "the network itself" for entry in entries))
    more = f" and {len(layers) - SHOWN} more" if len(layers) > SHOWN else ""
    words = _WORDS[why].format(macs=f"{macs:,}", params=f"{params:,}", operator=entries[0]["operator"])
    return f"{words} ({', '.join(layers[:SHOWN])}{more})"

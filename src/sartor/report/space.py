"""The searchability report of a network as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sartor.report import uncounted

SHOWN = 60
"""Groups that are listed; the JSON has all."""


def searchability(network: str, found: Mapping[str, Any]) -> RenderableType:
    """What can be cut, what cannot and why, and both ends of the space."""
    parts: list[RenderableType] = [_groups(network, found["groups"])]
    if len(found["groups"]) > SHOWN:
        parts.append(f"... and {len(found['groups']) - SHOWN} more groups (--json lists all)")
    if found["fixed"]:
        parts.append(_fixed(found["fixed"]))
    parts.append(_ends(found))
    left = [f"\nNot in the MACs: {line}" for line in uncounted.lines(found.get("uncounted", ()))]
    parts.extend(Text(line) for line in left)
    parts += [f"\nNote: {note}." for note in found.get("notes", ())]
    return Group(*parts)


def _groups(network: str, groups: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=f"{network}: {len(groups)} groups of channels", box=None, title_justify="left")
    table.add_column("group")
    table.add_column("channels", justify="right")
    table.add_column("MACs it can save", justify="right")
    table.add_column("layers that are cut together")
    for group in groups[:SHOWN]:
        options, layers = group["options"], group["layers"]
        others = ", ".join(layers[1:4]) + (f" and {len(layers) - 4} more" if len(layers) > 4 else "")
        table.add_row(group["name"], f"{options[0]}-{options[-1]}", f"{group['macs_share']:.1%}", others)
    return table


def _fixed(fixed: Sequence[Mapping[str, str]]) -> Table:
    table = Table(title="\nLayers whose outputs stay", box=None, title_justify="left")
    table.add_column("layer")
    table.add_column("because")
    for entry in fixed[:SHOWN]:
        table.add_row(entry["layer"], entry["reason"])
    return table


def _ends(found: Mapping[str, Any]) -> Table:
    table = Table(title="\nFrom the full network to the smallest", box=None, title_justify="left")
    for column in ("", "full", "floor", "floor / full"):
        table.add_column(column, justify="left" if not column else "right")
    full, floor = found["full"], found["floor"]
    for metric, name in (("macs", "MMACs"), ("params", "M parameters"), ("memory_bytes", "MB of activations")):
        table.add_row(
            name, f"{full[metric] / 1e6:.2f}", f"{floor[metric] / 1e6:.2f}", f"{floor[metric] / full[metric]:.1%}"
        )
    if "latency_ms" in full:
        a, b = full["latency_ms"], floor["latency_ms"]
        spans = [f"{t['value']:.3g} ({t['low']:.3g}-{t['high']:.3g})" for t in (a, b)]
        table.add_row("ms", *spans, f"{b['value'] / a['value']:.1%}")
    return table

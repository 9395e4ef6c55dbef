"""The closing table of a fit: reference, winner, uniform scaling and the search side by side, verdict and gain."""

from __future__ import annotations

import io
from collections.abc import Iterator

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from sartor.core.metrics import Metric, Score, difference
from sartor.core.records import Estimate
from sartor.report.format import (
    Shown,
    amount,
    bound,
    change,
    human,
    milliseconds,
    networks_at,
    quality,
    text,
)
from sartor.run.result import Point, Result

COLOURS = {"PASS": "bold green", "FAIL": "bold red", "UNSURE": "bold yellow"}


def summary(result: Result) -> RenderableType:
    """What a person reads when `sartor fit` has finished: the table; below it, verdict and gain at every budget."""
    table = Table(
        box=box.SIMPLE_HEAD, title=Text(text(result.title), style="bold"), title_justify="left", pad_edge=False
    )
    for i, name in enumerate(("network", f"{result.metric.name} (test)", "latency", "MACs", "params")):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    table.add_row(*cells(result, Shown("reference", result.reference)))
    for i, point in enumerate(result.points):
        table.add_section()
        if len(result.points) > 1:
            table.add_row(Text(_short(point), style="italic"))
        for network in networks_at(result, i):
            table.add_row(*cells(result, network), style="bold" if network.label == "winner" else "")
    return Group(table, *_conclusions(result))


def summary_text(result: Result, width: int = 100) -> str:
    """The same as plain text, without colours."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(summary(result))
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]


def cells(result: Result, network: Shown) -> tuple[str, ...]:
    """One row: label, quality, latency, MACs, parameters, in human units."""
    entry, metric = network.entry, result.metric
    return (
        network.label,
        quality(metric, entry.scores.get(metric.name)),
        milliseconds(entry.latency_ms),
        human(entry.macs),
        human(entry.params),
    )


def gain(point: Point, metric: Metric) -> Score | None:
    """By how much the winner is better than its rival, on the test split; None if there is no rival.

    The rival is uniform scaling; where that has won, the search's own network.
    """
    if point.rival is None:
        return None
    new, old = point.winner.scores.get(metric.name), point.rival.scores.get(metric.name)
    return None if new is None or old is None else difference(new, old, metric)


def gain_sentence(point: Point, metric: Metric) -> str:
    """What the search was worth against scaling all layers alike; empty if there is nothing to compare."""
    found = gain(point, metric)
    if point.delivered == "uniform":
        return _scaled_won(point, metric, found)
    if found is None:
        return ""
    numbers = change(metric, found)
    if not found.bounded:
        return f"against uniform scaling: {numbers}{_unequal(point)}"
    if found.low <= 0 <= found.high:  # type: ignore[operator]  # bounded
        words = f"no gain over uniform scaling: {numbers}, the interval contains 0"
    elif found.low > 0:  # type: ignore[operator]  # bounded
        words = f"gain over uniform scaling: {numbers}"
    else:
        words = f"loss against uniform scaling: {numbers} (sartor export FOLDER --network uniform writes that one)"
        if point.reason:
            return f"{words}, but {point.reason}"
    return f"{words}{_unequal(point)}"


def _scaled_won(point: Point, metric: Metric, found: Score | None) -> str:
    """`the winner is the uniformly scaled network: WHY; 83.6 % against 80.4 % on test: +3.2 points (+1.9 to +4.5)`."""
    words = "the winner is the uniformly scaled network" + (f": {point.reason}" if point.reason else "")
    if found is None:
        return words
    ours, theirs = (metric.text(entry.scores[metric.name].value) for entry in (point.winner, point.searched))
    words += f"; {ours} against {theirs} on test: {change(metric, found)}"
    if found.low is None or found.high is None or found.low > 0:
        return words
    if found.high >= 0:
        return f"{words}, the interval contains 0"
    return f"{words} (sartor export FOLDER --network searched writes the search's own)"


def _unequal(point: Point) -> str:
    """A warning when uniform scaling surely spent more than the budget, so that unequal costs are compared."""
    for cost, limit in point.budget.items():
        spent: Estimate | None = point.uniform.cost(cost) if point.uniform else None
        if spent is not None and spent.low > limit:
            return f"; uniform is over the budget ({amount(cost, spent.value)})"
    return ""


def _short(point: Point) -> str:
    return ", ".join(f"<= {bound(m, v)}" for m, v in point.budget.items())


def _conclusions(result: Result) -> Iterator[Text]:
    for point in result.points:
        yield Text(text(point.sentence), style=COLOURS[point.verdict])
        sentence = gain_sentence(point, result.metric)
        if sentence:
            yield Text(f"  {sentence}")
        if point.winner.note:
            yield Text(f"  {text(point.winner.note)}")

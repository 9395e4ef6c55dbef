"""The closing table of a fit: reference, winner, uniform scaling and the search side by side, verdict and gain.

The interval of the gain is Newcombe's hybrid score interval for the difference of two proportions (R. G. Newcombe,
Statistics in Medicine 17, 1998, method 10), computed from the intervals of the two accuracies. It treats the networks
as tested on independent examples; on a shared test split that is conservative.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from sartor.report.result import Fitting, Measured, Network, Raw, Result, amount, bound, digits, human, limits_of, read

COLOURS = {"PASS": "bold green", "FAIL": "bold red", "UNSURE": "bold yellow"}
COLUMNS = ("network", "accuracy", "latency", "MACs", "params")


def summary(result: Raw) -> RenderableType:
    """What a person reads when `sartor fit` has finished; `result` is a decoded `result.json`."""
    return render(read(result))


def summary_text(result: Raw, width: int = 100) -> str:
    """The same as plain text, without colours."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(summary(result))
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]


def render(result: Result) -> RenderableType:
    """The table and, below it, the verdict and the gain at every budget."""
    table = Table(box=box.SIMPLE_HEAD, title=Text(result.title, style="bold"), title_justify="left", pad_edge=False)
    for i, name in enumerate(_heads(result)):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    if result.reference:
        table.add_row(*cells(result.reference))
    for fitting in result.fittings:
        table.add_section()
        if len(result.fittings) > 1:
            table.add_row(Text(_short(fitting), style="italic"))
        for network in fitting.networks:
            table.add_row(*cells(network), style="bold" if network is fitting.winner else "")
    if not result.networks:
        return Group(Text(result.title, style="bold"), Text("no network was recorded"))
    return Group(table, *_conclusions(result))


def cells(network: Network) -> tuple[str, ...]:
    """One row: label, accuracy, latency, MACs, parameters, in human units."""
    return (
        network.label,
        percent(network.accuracy),
        milliseconds(network.latency_ms),
        human(network.macs),
        human(network.params),
    )


def percent(accuracy: Measured | None) -> str:
    """`98.1 % (97.4-98.6)`, or a dash."""
    if accuracy is None:
        return "-"
    value = f"{100 * accuracy.value:.1f} %"
    return value if accuracy.certain else f"{value} ({100 * accuracy.low:.1f}-{100 * accuracy.high:.1f})"


def milliseconds(latency: Measured | None) -> str:
    """`0.940 ms (0.930-0.950)`, or a dash."""
    if latency is None:
        return "-"
    value = f"{digits(latency.value)} ms"
    return value if latency.certain else f"{value} ({digits(latency.low)}-{digits(latency.high)})"


def verdict_of(fitting: Fitting) -> str:
    """The verdict sentence; made up from the numbers if none was recorded."""
    if fitting.sentence:
        return fitting.sentence
    if not fitting.limits:
        return f"{fitting.verdict or 'UNKNOWN'}: no budget was recorded"
    metric, limit = next(iter(fitting.limits.items()))
    cost = fitting.winner.cost(metric) if fitting.winner else None
    if cost is None:
        return f"{fitting.verdict or 'UNKNOWN'}: budget {limits_of(fitting)}, no measurement was recorded"
    sign = "<=" if cost.value <= limit else ">"
    return f"{fitting.verdict or 'UNKNOWN'}: {amount(metric, cost.value)} {sign} {bound(metric, limit)}"


def gain(fitting: Fitting, examples: int | None = None) -> Measured | None:
    """Accuracy of the winner minus that of its rival, a fraction, with its interval.

    The rival is uniform scaling; where that has won, the search's own network.

    Args:
        fitting: One budget's networks.
        examples: Size of the test split, for 95 % Wilson intervals where an accuracy has none.

    Returns:
        None if an accuracy or its interval is unknown, or if they come from different splits.
    """
    winner, rival = fitting.winner, fitting.searched or fitting.uniform
    if not winner or not rival or winner.accuracy_on != rival.accuracy_on:
        return None
    a, b = (_bounded(n.accuracy, examples) for n in (winner, rival))
    if a is None or b is None:
        return None
    difference = a.value - b.value
    below = math.hypot(a.value - a.low, b.high - b.value)
    above = math.hypot(a.high - a.value, b.value - b.low)
    return Measured(difference, difference - below, difference + above)


def wilson(proportion: float, examples: int) -> Measured:
    """The 95 % score interval of a proportion of `examples` (E. B. Wilson, 1927)."""
    z = 1.959963984540054
    scale = 1 / (1 + z * z / examples)
    centre = (proportion + z * z / (2 * examples)) * scale
    half = z * math.sqrt(proportion * (1 - proportion) / examples + (z / (2 * examples)) ** 2) * scale
    return Measured(proportion, max(0.0, centre - half), min(1.0, centre + half))


def gain_sentence(fitting: Fitting, examples: int | None = None) -> str:
    """What the search was worth against scaling all layers alike; empty if that is unknown."""
    points = gain(fitting, examples)
    if fitting.searched:
        return _scaled_won(fitting, points)
    if points is None:
        return ""
    numbers = _points(points)
    if points.low <= 0 <= points.high:
        words = f"no gain over uniform scaling: {numbers}, the interval contains 0"
    elif points.low > 0:
        words = f"gain over uniform scaling: {numbers}"
    else:
        words = f"loss against uniform scaling: {numbers} (sartor export FOLDER --network uniform writes that one)"
        if fitting.reason:
            return f"{words}, but {fitting.reason}"
    return f"{words}{_unequal(fitting)}"


def _scaled_won(fitting: Fitting, points: Measured | None) -> str:
    """`the winner is the uniformly scaled network: WHY; 83.6 against 80.4 % (test): +3.2 points (+1.9 to +4.5)`."""
    words = "the winner is the uniformly scaled network" + (f": {fitting.reason}" if fitting.reason else "")
    a, b = fitting.winner, fitting.searched
    if points is None or not (a and b and a.accuracy and b.accuracy):
        return words
    on = f" on {a.accuracy_on}" if a.accuracy_on else ""
    words += f"; {100 * a.accuracy.value:.1f} against {100 * b.accuracy.value:.1f} %{on}: {_points(points)}"
    if points.low <= 0 <= points.high:
        return f"{words}, the interval contains 0"
    return words if points.low > 0 else f"{words} (sartor export FOLDER --network searched writes the search's own)"


def _points(difference: Measured) -> str:
    return f"{100 * difference.value:+.1f} points ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"


def _unequal(fitting: Fitting) -> str:
    """A warning when uniform scaling surely spent more than the budget, so that accuracies compare unequal costs."""
    for metric, limit in fitting.limits.items():
        cost = fitting.uniform.cost(metric) if fitting.uniform else None
        if cost is not None and cost.low > limit:
            return f"; uniform is over the budget ({amount(metric, cost.value)})"
    return ""


def _short(fitting: Fitting) -> str:
    return ", ".join(f"<= {bound(m, v)}" for m, v in fitting.limits.items()) or "no budget"


def _bounded(accuracy: Measured | None, examples: int | None) -> Measured | None:
    if accuracy is None or not accuracy.certain:
        return accuracy
    return wilson(accuracy.value, examples) if examples and 0 <= accuracy.value <= 1 else None


def _heads(result: Result) -> Iterator[str]:
    splits = {n.accuracy_on for n in result.networks if n.accuracy_on}
    for name in COLUMNS:
        yield f"accuracy ({splits.copy().pop()})" if name == "accuracy" and len(splits) == 1 else name


def _conclusions(result: Result) -> Iterator[Text]:
    for fitting in result.fittings:
        yield Text(verdict_of(fitting), style=COLOURS.get(fitting.verdict, "bold"))
        sentence = gain_sentence(fitting, result.test_examples)
        if sentence:
            yield Text(f"  {sentence}")
    if not result.fittings:
        yield Text("no winner was recorded", style="yellow")

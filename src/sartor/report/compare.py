"""What `sartor compare` found: a table for the terminal, one HTML page, and the gains as PNG."""

from __future__ import annotations

import html
import io
import json
import statistics
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from plotly.subplots import make_subplots
from rich.markup import escape
from rich.table import Table

from sartor.core.metrics import SHARE, Goal, Metric
from sartor.core.records import Estimate
from sartor.report.bench import COLOURS
from sartor.report.format import amount, bound, duration, name_of, titled
from sartor.report.front import pareto
from sartor.report.page import data_of, document
from sartor.report.plots import GREY, RED, SHOWN, quality_axis
from sartor.run.comparison import Answer, Comparison, Contestant, Tried

UNITS = ("epochs", "trials", "seconds")
DASHES = ("solid", "dash", "dot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star")


def write(found: Comparison, folder: Path) -> None:
    """Write `compare.html` and `compare.png` to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compare.html").write_text(page(found), encoding="utf-8")
    (folder / "compare.png").write_bytes(_png(found))


def overview(found: Comparison) -> Table:
    """One row per strategy, the best mean first."""
    table = Table(
        title=escape(headline(found)),
        caption=escape(_caption(found)),
        title_justify="left",
        caption_justify="left",
        box=None,
    )
    shown = [i for i, column in enumerate(_columns(found)) if not column.startswith(("seed ", "hyper"))]
    for i in shown:
        table.add_column(escape(_columns(found)[i]), justify="right" if i else "left", no_wrap=True)
    for name, row in found.ranked:
        cells = [name, *_cells(found, row)]
        table.add_row(*(escape(cells[i]) for i in shown))
    return table


def sentences(found: Comparison) -> Iterator[str]:
    """What each strategy gains over random search, and what the seeds allow to say."""
    for name, row in found.ranked:
        if row.gain is not None:
            yield f"{name}: {row.gain.sentence}"


def notes(found: Comparison) -> Iterator[str]:
    """What one must know to read the figures."""
    seeds = len(found.seeds)
    if seeds < 2:
        yield "One seed: there are no intervals, and no difference can be told from luck."
    else:
        yield (
            f"Intervals are at 95 %, from Student's t over {seeds} seeds, each on its own: with many strategies some "
            "leave out 0 by luck alone."
        )
    examples = {a.examples for _, row in found.ranked for a in row.answers if a.examples}
    if len(examples) == 1:
        (count,) = examples
        one = f": one of them is {100 / count:.2f} points" if found.metric.interval == "proportion" else ""
        yield (
            f"The test split has {count} examples{one}. Intervals say how searches and trainings differ from seed to "
            "seed, not what another test split would show."
        )
    methods = {row.gain.method for _, row in found.ranked if row.gain and row.gain.method != "none"}
    if methods:
        yield f"Gains over random search: {', '.join(sorted(methods))}."
    yield from found.notes
    for name, reason in found.left_out.items():
        yield f"{name} is not there: {reason}."
    for name, row in found.ranked:
        for answer in row.answers:
            if answer.arch is None:
                yield f"{name} has no answer at seed {answer.seed}: {answer.reason}."


def headline(found: Comparison) -> str:
    """The problem and the allowance in a line."""
    limits = ", ".join(f"{name_of(m)} <= {bound(m, v)}" for m, v in found.budget.items())
    each = f"{found.given.amount:g} {found.given.unit} each" if found.given else "as they were run"
    count = len(found.seeds)
    return f"{found.title}, {limits}: {each}, {count} seed{'s' if count != 1 else ''}"


def _caption(found: Comparison) -> str:
    better = "more" if found.metric.goal == "max" else "less"
    return (
        f"{titled(found.metric.name)} ({better} is better) of each search's answer, trained in full, on the test "
        f"split, means with 95 % intervals; {name_of(found.cost)} and what was spent are medians over seeds"
    )


def _columns(found: Comparison) -> list[str]:
    measured = ["measured", "inside"] if _measured(found) else []
    return [
        "strategy",
        *(f"seed {s}" for s in (found.seeds if len(found.seeds) <= 5 else ())),
        "median",
        "mean",
        "modelled" if measured else name_of(found.cost),
        *measured,
        "epochs",
        "trials",
        "time",
        "hypervolume",
    ]


def _cells(found: Comparison, row: Contestant) -> list[str]:
    metric, by_seed = found.metric, {a.seed: a for a in row.answers}
    answers = [by_seed.get(s) for s in found.seeds] if len(found.seeds) <= 5 else []
    modelled = [a.modelled[found.cost] for a in row.answers if found.cost in a.modelled]
    return [
        *(_value(metric, a.quality if a else None) for a in answers),
        _value(metric, row.tested.median),
        _value(metric, row.tested.mean) + _span(metric, row.tested.interval),
        amount(found.cost, statistics.median(modelled)) if modelled else "-",
        *(_times(found, row) if _measured(found) else ()),
        *("-" if row.used.of(u) is None else f"{row.used.of(u):.4g}" for u in ("epochs", "trials")),
        duration(row.used.seconds),
        "-" if row.hypervolume is None else f"{row.hypervolume:.4f}",
    ]


def _value(metric: Metric, value: float | None) -> str:
    return "-" if value is None else metric.precise(value)


def _span(metric: Metric, interval: Estimate | None) -> str:
    if interval is None:
        return ""
    half = interval.high - interval.value
    return f" ± {100 * half:.2f}" if metric.unit == SHARE else f" ± {half:.3g}"


def _measured(found: Comparison) -> bool:
    return found.cost == "latency_ms" and any(a.latency_ms for _, row in found.ranked for a in row.answers)


def _times(found: Comparison, row: Contestant) -> tuple[str, str]:
    """The median of the measured latencies, and how many of the answers are inside the budget beyond doubt."""
    times = [a.latency_ms for a in row.answers if a.latency_ms]
    if not times:
        return "-", "-"
    inside = sum(t.high <= found.budget["latency_ms"] for t in times)
    return amount("latency_ms", statistics.median(t.value for t in times)), f"{inside} of {len(times)}"


def page(found: Comparison) -> str:
    """The whole page."""
    head = "".join(f"<th>{_esc(c)}</th>" for c in _columns(found))
    body = "".join(
        f"<tr><th>{_esc(name)}</th>" + "".join(f"<td>{_esc(c)}</td>" for c in _cells(found, row)) + "</tr>"
        for name, row in found.ranked
    )
    table = (
        f'<div class="scroll"><table class="numbers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )
    said = "".join(f"<li>{_esc(s)}</li>" for s in sentences(found))
    known = "".join(f"<li>{_esc(s)}</li>" for s in notes(found))
    sections = [
        f'<header><h1>{_esc(headline(found))}</h1><p class="soft">sartor compare</p></header>',
        f"<section><h2>Answers</h2><p>{_esc(_caption(found))}.{_esc(_reference(found))}</p>{table}</section>",
        _section("gains", "Gain over random search", f"<ul>{said}</ul>", _gains(found)),
        f"<section><h2>How sure this is</h2><ul>{known}</ul></section>",
        _section("front", "Quality against cost", _esc(_about_front(found)), _front(found)),
        _section(
            "anytime",
            "Best network so far",
            f"{_esc(titled(found.metric.name))} on the validation split of the network that each search would name, "
            "as the search saw it: medians over seeds, bands from the worst to the best seed; beginnings may lie "
            "outside the frame. Searches on a supernet have no line, their trials inherit weights; their answers, "
            "trained in full, are markers.",
            _curves(found, "best", f"{found.metric.name} (validation)"),
        ),
        _section(
            "volume", "Hypervolume", _esc(_about_volume(found)), _curves(found, "hypervolume", "share of the box")
        ),
        _environment(found),
    ]
    return document(headline(found), sections, files("sartor.report").joinpath("page.js").read_text())


def _reference(found: Comparison) -> str:
    mean = found.reference.tested.mean
    if mean is None:
        return ""
    cost = found.reference.modelled[found.cost]
    return (
        f" The reference network reaches {_value(found.metric, mean)} on average and takes {amount(found.cost, cost)}."
    )


def _about_front(found: Comparison) -> str:
    what = "measured" if _measured(found) else "exact"
    return (
        f"Above, the answers on the test split with {what} costs and the front of them all; below, the trials on the "
        "validation split with the costs that the searches saw, if they were trained in full. "
        f"{'Up' if found.metric.goal == 'max' else 'Down'} and left is better; the dashed line is the budget."
    )


def _about_volume(found: Comparison) -> str:
    corner = found.corner
    if corner is None:
        return "No search has trials of networks trained in full."
    return (
        "What the trials dominate, as a share of the box from the reference network's "
        f"{name_of(found.cost)} ({amount(found.cost, corner.cost)}) down to none, and from the worst "
        f"{found.metric.name} of any trial ({_value(found.metric, corner.worst)}, validation) to the best "
        f"({_value(found.metric, corner.best)}). Exact, in two dimensions; only networks trained in full count, "
        "medians over seeds."
    )


def _section(name: str, title: str, about: str, figure: go.Figure | None) -> str:
    if figure is None:
        return f'<section><h2>{title}</h2><p class="missing">Not shown: nothing was recorded.</p></section>'
    text = about if about.startswith("<") else f'<p class="soft">{about}</p>'
    return (
        f'<section><div class="whole"><h2>{title}</h2>{text}<div class="scroll"><div class="plot" id="{name}"></div>'
        f"</div></div>{data_of(name, json.loads(figure.to_json()))}</section>"
    )


def _environment(found: Comparison) -> str:
    listed = [(k, v) for k, v in found.environment.items() if not isinstance(v, Mapping)]
    listed += [("seconds in all", duration(found.spent.total_seconds))] if found.spent else []
    rows = "".join(f'<tr><th>{_esc(k)}</th><td class="value">{_esc(v)}</td></tr>' for k, v in listed)
    return f"<section><h2>Environment</h2><table>{rows}</table></section>" if rows else ""


def _esc(value: Any) -> str:
    return html.escape(str(value))


def _figure(height: int, rows: int = 1) -> go.Figure:
    figure = make_subplots(rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    clear = "rgba(0,0,0,0)"
    figure.update_layout(
        template=None,
        height=height,
        margin={"l": 70, "r": 20, "t": 40, "b": 50},
        paper_bgcolor=clear,
        plot_bgcolor=clear,
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"bgcolor": clear},
        hovermode="closest",
    )
    axis = {"gridcolor": "rgba(128,128,128,0.25)", "zeroline": False, "automargin": True, "ticks": ""}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def _look(index: int) -> tuple[str, str, str]:
    """Colour, dash and symbol: colours repeat after eight strategies, dashes and symbols tell them apart."""
    colour = COLOURS[index % len(COLOURS)]
    return colour, DASHES[index // len(COLOURS) % len(DASHES)], SYMBOLS[(index + index // len(COLOURS)) % len(SYMBOLS)]


def _gains(found: Comparison) -> go.Figure | None:
    rows = [(n, row.gain, row.gain.value) for n, row in found.ranked if row.gain and row.gain.value is not None]
    if not rows:
        return None
    share = found.metric.unit == SHARE
    factor, unit = (100, "points") if share else (1, found.metric.unit)
    figure = _figure(120 + 30 * len(rows))
    sides = [
        (factor * (g.high - v), factor * (v - g.low)) if g.low is not None and g.high is not None else (0, 0)
        for _, g, v in rows
    ]
    error = {"type": "data", "array": [a for a, _ in sides], "arrayminus": [b for _, b in sides], "color": GREY}
    colours = {"gain": COLOURS[0], "loss": RED}
    figure.add_scatter(
        x=[factor * v for _, _, v in rows],
        y=[_esc(n) for n, _, _ in rows],
        error_x=error,
        mode="markers",
        marker={"color": [colours.get(g.verdict, GREY) for _, g, _ in rows], "size": 10},
        hovertemplate=f"%{{y}}: %{{x:+.3g}} {_esc(unit)}<extra></extra>",
        showlegend=False,
    )
    figure.add_vline(x=0, line={"color": GREY, "dash": "dot"})
    what = f"{unit} of {found.metric.name}".strip() if unit else found.metric.name
    figure.update_xaxes(title_text=f"{_esc(what)} better than random search on the test split, 95 % intervals")
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def _cost_of(found: Comparison, answer: Answer) -> float | None:
    if answer.latency_ms and found.cost == "latency_ms":
        return answer.latency_ms.value
    return answer.modelled.get(found.cost)


def _front(found: Comparison) -> go.Figure | None:
    figure, everyone = _figure(640, 2), list[tuple[float, float]]()
    seen = list[tuple[float, float]]()
    axis = "%{y:.2%}" if found.metric.unit == SHARE else "%{y:.4g}"
    for i, (name, row) in enumerate(found.ranked):
        colour, _, symbol = _look(i)
        answers = [(_cost_of(found, a), a.quality, a.seed) for a in row.answers]
        answers += [(o.cost, o.quality, a.seed) for a in row.answers for o in a.others]
        known = [(c, q, s) for c, q, s in answers if c is not None and q is not None]
        everyone += [(c, q) for c, q, _ in known]
        shared = {"name": _esc(name), "legendgroup": name, "mode": "markers"}
        figure.add_scatter(
            x=[c for c, _, _ in known],
            y=[q for _, q, _ in known],
            customdata=[s for _, _, s in known],
            marker={"color": colour, "symbol": symbol, "size": 11},
            hovertemplate=f"seed %{{customdata}}: {axis} at %{{x:.4~g}}",
            **shared,
            row=1,
            col=1,
        )
        dots = [pair for a in row.answers if row.trained for t in a.trials if (pair := _shown(t))]
        seen += dots
        dots = dots[:: -(-len(dots) // (SHOWN // 4)) or 1]
        marker = {"color": colour, "symbol": symbol, "size": 5, "opacity": 0.5}
        figure.add_scatter(
            x=[c for c, _ in dots], y=[q for _, q in dots], marker=marker, showlegend=False, **shared, row=2, col=1
        )
    if not everyone:
        return None
    for row_, points in ((1, everyone), (2, seen)):
        best = [points[i] for i in pareto(points, found.metric.goal)]
        line = {"color": GREY, "shape": "hv", "width": 1.5}
        figure.add_scatter(
            x=[c for c, _ in best],
            y=[q for _, q in best],
            mode="lines",
            line=line,
            name="front",
            legendgroup="front",
            showlegend=row_ == 1,
            hoverinfo="skip",
            row=row_,
            col=1,
        )
    figure.add_vline(x=found.budget[found.cost], line={"color": RED, "dash": "dash", "width": 1.5}, row="all")
    figure.update_yaxes(**quality_axis(found.metric))
    figure.update_yaxes(title_text="test", row=1, col=1)
    figure.update_yaxes(title_text="validation, in the search", row=2, col=1)
    figure.update_xaxes(
        title_text=f"{name_of(found.cost)}{' (ms)' if found.cost == 'latency_ms' else ''}", row=2, col=1
    )
    return figure


def _shown(trial: Tried) -> tuple[float, float] | None:
    """Cost and quality of a trial that was trained in full."""
    if trial.cost is None or trial.quality is None or trial.fidelity < 1:
        return None
    return trial.cost, trial.quality


def _curves(found: Comparison, value: str, title: str) -> go.Figure | None:
    """One line per strategy against what was spent; buttons change the unit."""
    units = [u for u in UNITS if any(a.used.of(u) for _, row in found.ranked for a in row.answers)]
    first = found.given.unit if found.given else None
    units.sort(key=lambda u: u != first)
    figure, owner = _figure(480), list[str]()
    for unit in units:
        before = len(figure.data)
        for i, (name, row) in enumerate(found.ranked):
            _add_curve(figure, name, row, _look(i), unit, value)
        figure.update_traces(visible=unit == units[0], selector=lambda trace, n=before: trace in figure.data[n:])
        owner += [unit] * (len(figure.data) - before)
    if not owner:
        return None
    buttons = [
        {
            "label": f"against {u}",
            "method": "update",
            "args": [{"visible": [o == u for o in owner]}, {"xaxis.title.text": u}],
        }
        for u in units
    ]
    figure.update_layout(
        updatemenus=[
            {
                "buttons": buttons,
                "type": "buttons",
                "direction": "right",
                "x": 0,
                "y": 1.02,
                "xanchor": "left",
                "yanchor": "bottom",
            }
        ]
    )
    figure.update_xaxes(title_text=units[0])
    figure.update_yaxes(**(quality_axis(found.metric) if value == "best" else {}))
    figure.update_yaxes(title_text=title, range=_frame(figure, found.metric.goal if value == "best" else "max"))
    return figure


def _frame(figure: go.Figure, goal: Goal) -> tuple[float, float]:
    """Ends of the axis that show how the curves end: how they begin would take most of the height."""
    ends = [trace.y[-1] for trace in figure.data if len(trace.y)]
    least = 0.005 * max(1.0, *map(abs, ends))
    room = max(max(ends) - min(ends), least)
    return (min(ends) - room, max(ends) + 0.1 * room) if goal == "max" else (min(ends) - 0.1 * room, max(ends) + room)


def _add_curve(
    figure: go.Figure, name: str, row: Contestant, look: tuple[str, str, str], unit: str, value: str
) -> None:
    colour, dash, symbol = look
    if not row.trained or not any(a.trials for a in row.answers):
        known = [(x, a.valid) for a in row.answers if a.valid is not None and (x := a.used.of(unit)) is not None]
        if value == "best" and known:
            marker = {"color": colour, "symbol": symbol, "size": 11}
            at, values = zip(*known, strict=True)
            figure.add_scatter(x=at, y=values, mode="markers", marker=marker, name=f"{_esc(name)} (answers)")
        return
    xs, rows = bands([[(t.of(unit), t.of(value)) for t in a.trials] for a in row.answers])
    if not xs:
        return
    edge = {"mode": "lines", "line": {"width": 0, "shape": "hv"}, "legendgroup": name, "showlegend": False}
    figure.add_scatter(x=xs, y=[max(v) for v in rows], hoverinfo="skip", **edge)
    fill = f"rgba({', '.join(str(int(colour[k : k + 2], 16)) for k in (1, 3, 5))}, 0.1)"
    figure.add_scatter(x=xs, y=[min(v) for v in rows], fill="tonexty", fillcolor=fill, hoverinfo="skip", **edge)
    figure.add_scatter(
        x=xs,
        y=[statistics.median(v) for v in rows],
        mode="lines",
        line={"color": colour, "dash": dash, "width": 2, "shape": "hv"},
        name=_esc(name),
        legendgroup=name,
    )


def bands(curves: Sequence[Sequence[tuple[float | None, float | None]]]) -> tuple[list[float], list[list[float]]]:
    """Step curves of several seeds on one axis.

    Args:
        curves: Per seed, (spent, value) by rising `spent`.

    Returns:
        Where any curve steps, from the first place at which all have a value; and the values of all of them there.
    """
    known = [[(x, y) for x, y in c if x is not None and y is not None] for c in curves]
    known = [c for c in known if c]
    if not known:
        return [], []
    begin = max(c[0][0] for c in known)
    xs = sorted({x for c in known for x, _ in c if x >= begin})
    places = [[x for x, _ in c] for c in known]
    rows = [[c[bisect_right(p, x) - 1][1] for c, p in zip(known, places, strict=True)] for x in xs]
    return xs, rows


def _png(found: Comparison) -> bytes:
    """Quality of every answer on the test split, with means and intervals."""
    rows = [(n, row, row.tested.mean) for n, row in found.ranked if row.tested.mean is not None]
    factor, unit = (100, "%") if found.metric.unit == SHARE else (1, found.metric.unit)
    figure = Figure(figsize=(8, 1.4 + 0.38 * len(rows)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for i, (_, row, mean) in enumerate(rows):
        colour = COLOURS[i % len(COLOURS)]
        values = [factor * a.quality for a in row.answers if a.quality is not None]
        axes.plot(values, [i] * len(values), "o", color=colour, alpha=0.5)
        if row.tested.interval:
            ends = [factor * row.tested.interval.low, factor * row.tested.interval.high]
            axes.plot(ends, [i, i], color=colour)
        axes.plot([factor * mean], [i], "|", color=colour, markersize=16, markeredgewidth=2.5)
    axes.set_yticks(range(len(rows)), [n.replace("$", r"\$") for n, _, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel(
        f"{found.metric.name} on the test split{f' ({unit})' if unit else ''}: answers by seed, mean, 95 % interval"
    )
    axes.set_title(headline(found).replace("$", r"\$"), fontsize=9)
    axes.grid(alpha=0.3)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()

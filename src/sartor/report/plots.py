"""Plotly figures of a run: pure functions of its result and its search, each None when there is nothing to draw.

Colours are those of M. Okabe and K. Ito's palette, which people with colour-blindness can tell apart. Backgrounds are
transparent and the ink is left to the page, so that one figure serves light, dark and print.
"""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sartor.core.metrics import SHARE, Metric, Score
from sartor.core.records import Choice, Estimate, Scalar
from sartor.report.format import (
    Shown,
    amount,
    bound,
    digits,
    duration,
    milliseconds,
    name_of,
    networks_of,
    quality,
    text,
    titled,
)
from sartor.report.front import pareto
from sartor.run.result import Moment, Result, Stage, Trace

P = TypeVar("P")

GREY, BLUE, ORANGE, GREEN, RED, SKY = "#808080", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9"
PURPLE = "#CC79A7"
SHOWN = 4000
"""More trials than this are thinned out: the page stays small and quick."""
PANELS = 4
MANY = 40
"""With more blocks than this, those that are the same in all networks are left out; of more options, those unused."""
UPRIGHT = 16
"""With more layers than this, plotly turns their names upright, which takes height."""
POSITIONS = ("epoch", "step", "iteration", "generation", "round", "evaluations")
"""Keys of a history that say when, not what."""
MARKS = (
    ("reference", GREY, "diamond", 12),
    ("uniform", ORANGE, "square", 12),
    ("searched", PURPLE, "triangle-up", 12),
    ("winner", BLUE, "circle", 10),
)
"""Label, colour, symbol and size of the verified networks; the winner comes last, on top: of uniform, if it is that."""


def draw(result: Result, trace: Trace) -> dict[str, go.Figure]:
    """Every figure that the run allows, by name, in the order of the page."""
    drawn = {
        "trade_off": trade_off(result, trace),
        "widths": widths(result),
        "removals": removals(result),
        "operations": operations(result),
        "prediction": prediction(result),
        "progress": progress(result, trace),
        "narrowing": narrowing(result, trace),
        "stages": stages(result),
    }
    figures = {name: figure for name, figure in drawn.items() if figure is not None}
    for figure in figures.values():
        _give_room(figure)
    return figures


def _give_room(figure: go.Figure) -> None:
    """Where all that is drawn has one value, the axis shows what is around it: plotly would take the unit's width."""
    for axis in figure.select_yaxes():
        name = axis.plotly_name.removeprefix("yaxis")
        drawn = [t for t in figure.data if (t.yaxis or "y") == f"y{name}"]
        if any(t.type != "scatter" or t.error_y.array is not None for t in drawn):
            continue
        values = {y for t in drawn for y in t.y if y is not None}
        if len(values) == 1 and all(_is_number(y) for y in values):
            (value,) = values
            room = ROOM * abs(value) or ROOM
            axis.range = [value - room, value + room]


ROOM = 0.1
"""Above and below a value that stands alone, as a share of it."""


def trade_off(result: Result, trace: Trace) -> go.Figure | None:
    """Quality against the budget's cost: the search's candidates, the verified networks, the budgets, the front."""
    cost, metric, trials = result.cost, result.metric, _trials(result, trace)
    verified = [n for n in networks_of(result) if metric.name in n.entry.scores]
    if not trials and not verified:
        return None
    apart = _apart(trials, [n.entry.scores[metric.name].value for n in verified], metric)
    name = titled(metric.name)
    figure = _figure(f"{name} against {name_of(cost)}", 620 if apart else 460, 2 if apart else 1)
    below = 2 if apart else 1
    _add_trials(figure, trials, cost, metric, below)
    for label, colour, symbol, size in MARKS:
        group = [n for n in verified if n.label == label]
        if group:
            figure.add_trace(_verified(group, cost, metric, colour, symbol, size), row=1, col=1)
    for point in result.points:
        # Upright, so that budgets close to each other stay readable on a phone.
        note: dict[str, Any] = {
            "annotation_text": f"budget {bound(cost, point.budget[cost])}",
            "annotation_font_color": RED,
            "annotation_textangle": -90,
            "annotation_position": "bottom right",
        }
        figure.add_vline(x=point.budget[cost], line={"color": RED, "dash": "dash", "width": 1.5}, row="all", **note)
    figure.update_xaxes(**_cost_axis(cost), title_text="")
    figure.update_xaxes(title_text=_axis_title(cost), row=below, col=1)
    figure.update_yaxes(**quality_axis(metric))
    if apart:
        figure.update_yaxes(title_text=f"verified {metric.name}", row=1, col=1)
        figure.update_yaxes(title_text="estimate in the search", row=2, col=1)
        figure.layout.annotations = [a for a in figure.layout.annotations if a.xref == "x"]
    return figure


def widths(result: Result) -> go.Figure | None:
    """Channels of every layer: reference, winner, and uniform or, where that has won, the search's own network.

    Further budgets wait in the legend.
    """
    compared, apart = _compared(result), _switches(result)
    known = [
        (name, found, colour, shown)
        for name, n, colour, shown in compared
        if (found := _numeric(n.entry.options, apart))
    ]
    if not known:
        return None
    layers = list(dict.fromkeys(layer for _, found, _, _ in known for layer in found))
    figure = _figure("Width of every layer", 420 + _upright(layers))
    for name, found, colour, shown in known:
        heights = [found.get(layer) for layer in layers]
        hover = f"{html.escape(name)}<br>%{{x}}: %{{y}}<extra></extra>"
        visible = True if shown else "legendonly"
        bar = go.Bar(x=_labels(layers), y=heights, name=html.escape(name), marker_color=colour, hovertemplate=hover)
        figure.add_trace(bar.update(visible=visible))
    figure.update_layout(barmode="group", bargap=0.25, bargroupgap=0.05)
    figure.update_xaxes(title_text="layer, in the order of the network", type="category", showgrid=False)
    figure.update_yaxes(title_text="width (channels)", rangemode="tozero")
    return figure


def removals(result: Result) -> go.Figure | None:
    """Layers and blocks that a network can do without: one row per network, a filled marker for what it still has."""
    switches = _switches(result)
    known = [
        (name, {k: v for k, v in _numeric(n.entry.options).items() if k in switches}, colour)
        for name, n, colour, shown in _compared(result)
        if shown
    ]
    layers = list(dict.fromkeys(layer for _, found, _ in known for layer in found))
    if not any(value == 0 for _, found, _ in known for value in found.values()):
        return None
    figure = _figure("Layers and blocks that are left", 190 + 40 * len(known) + _upright(layers))
    for name, found, colour in known:
        here = [(j, found[layer] > 0) for j, layer in enumerate(layers) if layer in found]
        marks = go.Scatter(
            x=[j for j, _ in here],
            y=[html.escape(name)] * len(here),
            customdata=_labels([f"{layers[j]} {'stays' if left else 'is gone'}" for j, left in here]),
            mode="markers",
            name=html.escape(name),
            marker={"color": colour, "size": 9, "symbol": ["square" if left else "x-thin-open" for _, left in here]},
            hovertemplate=f"{html.escape(name)}<br>%{{customdata}}<extra></extra>",
            showlegend=False,
        )
        figure.add_trace(marks)
    figure.update_xaxes(title_text="layer or block, in the order of the network", showgrid=False, **_places(layers))
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return figure


def operations(result: Result) -> go.Figure | None:
    """What every block is, where options are words: one marker per network, side by side, on the line of its option."""
    compared = _compared(result)
    known = [(name, found, colour, shown) for name, n, colour, shown in compared if (found := _worded(n.entry.options))]
    if not known:
        return None
    blocks = list(dict.fromkeys(block for _, found, _, _ in known for block in found))
    if len(blocks) > MANY:
        blocks = [b for b in blocks if len({found.get(b) for _, found, _, _ in known}) > 1]
        if not blocks:
            return None
    listed = [o for choice in result.search.choices for o in choice.options if isinstance(o, str)]
    used = dict.fromkeys(found[block] for _, found, _, _ in known for block in blocks if block in found)
    options = list(dict.fromkeys([*listed, *used]))
    if len(options) > MANY:
        options = [option for option in options if option in used]
    figure = _figure("Operation of every block", 190 + 24 * len(options) + _upright(blocks))
    apart = 0.6 / len(known)
    for i, (name, found, colour, shown) in enumerate(known):
        here = [(j, found[block]) for j, block in enumerate(blocks) if block in found]
        marks = go.Scatter(
            x=[j + apart * (i - (len(known) - 1) / 2) for j, _ in here],
            y=_labels([option for _, option in here]),
            customdata=_labels([blocks[j] for j, _ in here]),
            mode="markers",
            name=html.escape(name),
            marker={"color": colour, "size": 11, "symbol": "square"},
            hovertemplate=f"{html.escape(name)}<br>%{{customdata}}: %{{y}}<extra></extra>",
        )
        figure.add_trace(marks.update(visible=True if shown else "legendonly"))
    figure.update_xaxes(title_text="block, in the order of the network", showgrid=False, **_places(blocks))
    order = {"categoryorder": "array", "categoryarray": _labels(options)}
    figure.update_yaxes(
        title_text="operation", title_standoff=16, type="category", range=[-0.6, len(options) - 0.4], **order
    )
    return figure


def prediction(result: Result) -> go.Figure | None:
    """Predicted against measured latency of networks that the latency model had not seen, and of the verified ones."""
    heldout = [(h.predicted, h.measured) for h in (result.latency_model.heldout if result.latency_model else ())]
    if not heldout:
        return None
    figure = _figure("Predicted against measured latency", 480)
    figure.add_trace(_heldout_trace(heldout))
    verified = networks_of(result)
    for label, colour, symbol, size in MARKS:
        pairs = [
            (n.entry.predicted_latency_ms, n.entry.latency_ms)
            for n in verified
            if n.label == label and n.entry.predicted_latency_ms is not None and not n.entry.elsewhere
        ]
        if pairs:
            trace = _heldout_trace(pairs)
            trace.update(name=label, marker={"color": colour, "symbol": symbol, "size": size})
            figure.add_trace(trace)
    ends = [v for p, m in heldout for v in (p, m.low, m.high)]
    line = {"color": GREY, "dash": "dot", "width": 1.5}
    diagonal = [min(ends), max(ends)]
    figure.add_trace(
        go.Scatter(x=diagonal, y=diagonal, mode="lines", line=line, name="perfect prediction", hoverinfo="skip")
    )
    figure.update_xaxes(title_text="predicted latency (ms)")
    figure.update_yaxes(title_text="measured latency (ms)")
    return figure


def progress(result: Result, trace: Trace) -> go.Figure | None:
    """What the search wrote down, quantity by quantity; without that, the best trial so far."""
    panels = _panels(trace.logs, result.metric)
    if not panels:
        return _best_so_far(result, trace)
    step, unit = _steps(trace.logs)
    figure = _figure("Progress of the search", 140 + 200 * len(panels), len(panels))
    colours = (BLUE, ORANGE, GREEN, RED, SKY, GREY)
    drawn = 0
    for row, (axis, keys) in enumerate(panels.items(), start=1):
        for key in keys:
            every = [(x, log[key]) for x, log in zip(step, trace.logs, strict=True) if _is_number(log.get(key))]
            pairs = _thinned(figure, every, "records")
            line = {"color": colours[drawn % len(colours)], "width": 2}
            mode = "lines" if len(pairs) > 1 else "markers"
            xs, ys = zip(*pairs, strict=True)
            hover = f"{unit} %{{x}}<br>{html.escape(key)}: %{{y:.4g}}<extra></extra>"
            drawn_one = go.Scatter(x=xs, y=ys, mode=mode, line=line, name=html.escape(key), hovertemplate=hover)
            figure.add_trace(drawn_one, row=row, col=1)
            drawn += 1
        figure.update_yaxes(title_text=html.escape(axis), row=row, col=1)
        if axis == result.metric.name:
            figure.update_yaxes(**quality_axis(result.metric), row=row, col=1)
    figure.update_xaxes(title_text=unit, row=len(panels), col=1)
    return figure


def narrowing(result: Result, trace: Trace) -> go.Figure | None:
    """How the probability of drawing each option moved while the search narrowed: a heat map at up to four moments."""
    moments = _spread([m for m in trace.narrowing if any(m.probabilities)])
    if not moments:
        return None
    choices = result.search.choices
    names = [c.name for c in choices]
    titles = [f"epoch {m.epoch}" for m in moments]
    figure = make_subplots(
        rows=1, cols=len(moments), shared_yaxes=True, subplot_titles=_labels(titles), horizontal_spacing=0.015
    )
    for column, moment in enumerate(moments, start=1):
        figure.add_trace(_heatmap(moment, names, choices), row=1, col=column)
    _style(figure, "How the search narrowed the choices", 190 + 22 * len(names))
    figure.update_layout(coloraxis={"colorscale": "Cividis", "cmin": 0, "cmax": 1, "colorbar": _colourbar()})
    figure.update_xaxes(title_text="option", showgrid=False, dtick=_dtick(moments), zeroline=False)
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    return figure


def stages(result: Result) -> go.Figure | None:
    """Seconds of every stage, with the networks that it trained and measured."""
    timed = result.spent.stages
    if not timed:
        return None
    names = _labels([text(s.name) for s in timed])
    spent = [s.seconds for s in timed]
    figure = _figure("Time spent", 130 + 34 * len(timed))
    hover = [_stage_label(s) for s in timed]
    style: dict[str, Any] = {"orientation": "h", "marker_color": BLUE, "textposition": "outside", "cliponaxis": False}
    style["hovertemplate"] = "%{y}: %{customdata}<extra></extra>"
    figure.add_trace(
        go.Bar(x=spent, y=names, text=[duration(v) for v in spent], customdata=hover, showlegend=False, **style)
    )
    figure.update_xaxes(title_text="time (s)", range=[0, 1.3 * max([*spent, 1e-9])])
    figure.update_yaxes(autorange="reversed", type="category", showgrid=False)
    return figure


def quality_axis(metric: Metric) -> dict[str, Any]:
    """Title and ticks of an axis on which a metric stands."""
    if metric.unit == SHARE:
        return {"title_text": metric.name, "tickformat": ".1%"}
    return {"title_text": f"{metric.name} ({metric.unit})" if metric.unit else metric.name}


def _figure(title: str, height: int, panels: int = 1) -> go.Figure:
    return _style(make_subplots(rows=panels, cols=1, shared_xaxes=True, vertical_spacing=0.06), title, height)


def _style(figure: go.Figure, title: str, height: int) -> go.Figure:
    clear = "rgba(0,0,0,0)"
    axis = {
        "gridcolor": "rgba(128,128,128,0.25)",
        "zeroline": False,
        "automargin": True,
        "linecolor": GREY,
        "ticks": "",
    }
    figure.update_layout(
        template=None,
        title={"text": title, "x": 0, "xref": "paper"},
        height=height,
        margin={"l": 60, "r": 20, "t": 60, "b": 50},
        paper_bgcolor=clear,
        plot_bgcolor=clear,
        font={"family": "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', Arial, sans-serif", "size": 13},
        legend={"orientation": "h", "x": 0, "y": 1.0, "xanchor": "left", "yanchor": "bottom", "bgcolor": clear},
        hovermode="closest",
        modebar={"bgcolor": clear, "color": GREY, "activecolor": BLUE},
    )
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def _axis_title(metric: str) -> str:
    return "latency on the target (ms)" if metric == "latency_ms" else name_of(metric)


def _cost_axis(metric: str) -> dict[str, Any]:
    return {"rangemode": "tozero"} if metric.endswith("_ms") else {"rangemode": "tozero", "tickformat": "~s"}


def _labels(names: Sequence[str]) -> list[str]:
    """Names of the user as plotly shows them: it reads a little HTML, which they are not."""
    return [html.escape(n) for n in names]


def _upright(names: Sequence[str]) -> int:
    """The pixels that names on the axis take, if they are so many that they stand upright."""
    return 5 * max(map(len, names)) if len(names) > UPRIGHT else 0


def _places(names: Sequence[str]) -> dict[str, Any]:
    """The ticks of an axis on which 0, 1, ... have these names."""
    return {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": _labels(names)}


def _trials(result: Result, trace: Trace) -> list[tuple[int, float, float]]:
    """Index, cost and estimated quality of the usable trials."""
    cost, name = result.cost, result.metric.name
    return [
        (i, t.metrics[cost], t.metrics[name])
        for i, t in enumerate(trace.trials)
        if t.ok and _is_number(t.metrics.get(cost)) and _is_number(t.metrics.get(name))
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _apart(trials: Sequence[tuple[int, float, float]], exact: Sequence[float], metric: Metric) -> bool:
    """Whether estimates and verified values are so far from each other that one axis would flatten both."""
    estimated = [a for _, _, a in trials]
    if not exact or not estimated:
        return False
    gap = max(min(exact) - max(estimated), min(estimated) - max(exact))
    least = 0.01 if metric.unit == SHARE else 1e-3 * max(map(abs, exact))
    return gap > 0.5 * max(max(exact) - min(exact), max(estimated) - min(estimated), least)


def _add_trials(
    figure: go.Figure, trials: Sequence[tuple[int, float, float]], cost: str, metric: Metric, row: int
) -> None:
    if not trials:
        return
    dots = _thinned(figure, trials, "candidates", "the line of the best is of all")
    words = f"modelled {name_of(cost)} %{{x:.4~g}} ms" if cost.endswith("_ms") else f"{name_of(cost)} %{{x:.4~s}}"
    hover = f"candidate %{{customdata}}<br>{words}<br>estimated {html.escape(metric.name)} {_y(metric)}<extra></extra>"
    best = [trials[i] for i in pareto([(c, a) for _, c, a in trials], metric.goal)]
    looks: list[tuple[str, Sequence[tuple[int, float, float]], dict[str, Any]]] = [
        ("candidates (estimates)", dots, {"mode": "markers", "marker": {"color": SKY, "size": 6, "opacity": 0.55}}),
        ("best estimates", best, {"mode": "lines", "line": {"color": GREEN, "width": 2, "shape": "hv"}}),
    ]
    for name, points, look in looks:
        indices, costs, values = zip(*points, strict=True)
        drawn = go.Scatter(x=costs, y=values, customdata=indices, name=name, hovertemplate=hover, **look)
        figure.add_trace(drawn, row=row, col=1)


def _thinned(figure: go.Figure, points: Sequence[P], what: str, whole: str = "") -> list[P]:
    """At most `SHOWN` of them, the last one included; where some are left out, the page says so."""
    every = -(-len(points) // SHOWN)
    if every <= 1:
        return list(points)
    also = f"; {whole}" if whole else ""
    figure.update_layout(meta=f"Drawn: one in {every} of {len(points):,} {what}{also}.")
    return [*points[-1::-every][::-1]]


def _y(metric: Metric) -> str:
    """The value of a point, for plotly's hover texts."""
    return "%{y:.2%}" if metric.unit == SHARE else f"%{{y:.4g}} {html.escape(metric.unit)}".rstrip()


def _verified(group: Sequence[Shown], cost: str, metric: Metric, colour: str, symbol: str, size: int) -> go.Scatter:
    ordered = sorted(group, key=lambda n: n.entry.cost(cost).value)
    costs = [n.entry.cost(cost) for n in ordered]
    scores = [n.entry.scores[metric.name] for n in ordered]
    hover = [
        f"{n.label}: {html.escape(quality(metric, s))}<br>{_costs(n)}" for n, s in zip(ordered, scores, strict=True)
    ]
    return go.Scatter(
        x=[c.value for c in costs],
        y=[s.value for s in scores],
        error_x=_errors(costs),
        error_y=_errors([_bounds(s) for s in scores]),
        text=hover,
        hovertemplate="%{text}<extra></extra>",
        mode="lines+markers" if len(group) > 1 else "markers",
        name=group[0].label,
        marker={"color": colour, "symbol": symbol, "size": size},
        line={"color": colour, "width": 1, "dash": "dot"},
    )


def _bounds(score: Score) -> Estimate:
    """Without an interval, one of no width: no error bar."""
    if score.low is None or score.high is None:
        return Estimate(score.value, score.value, score.value)
    return Estimate(score.value, score.low, score.high)


def _costs(network: Shown) -> str:
    entry = network.entry
    parts = [milliseconds(entry.latency_ms)]
    parts += [f"{amount(m, entry.cost(m).value)} {name_of(m)}" for m in ("macs", "params")]
    return "<br>".join(parts)


def _errors(values: Sequence[Estimate]) -> dict[str, Any]:
    above, below = [v.high - v.value for v in values], [v.value - v.low for v in values]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "width": 4, "thickness": 1.5}


def _compared(result: Result) -> list[tuple[str, Shown, str, bool]]:
    """Name, network, colour and whether it shows at once, of what is compared choice by choice.

    Where uniform scaling has won, its bars are the winner's, and the search's own network takes its place.
    """
    colours = {label: colour for label, colour, _, _ in MARKS}
    found = []
    for n in networks_of(result):
        point = None if n.point is None else result.points[n.point]
        if n.label == "uniform" and point is not None and point.delivered == "uniform":
            continue
        at = ""
        if point is not None and len(result.points) > 1:
            at = " @ " + ", ".join(bound(m, v) for m, v in point.budget.items())
        found.append((f"{n.label}{at}", n, colours[n.label], not n.point))
    return found


def _switches(result: Result) -> set[str]:
    """Choices that say whether a layer or block is there."""
    return {c.name for c in result.search.choices if c.options == (0, 1)}  # equal to (False, True)


def _worded(found: Mapping[str, Scalar]) -> dict[str, str]:
    return {block: v for block, v in found.items() if isinstance(v, str)}


def _numeric(found: Mapping[str, Scalar], without: Collection[str] = ()) -> dict[str, float]:
    return {k: float(v) for k, v in found.items() if not isinstance(v, str) and k not in without}


def _heldout_trace(known: Sequence[tuple[float, Estimate]]) -> go.Scatter:
    errors = [f"{100 * (p / m.value - 1):+.1f} %" if m.value else "" for p, m in known]
    intervals = [milliseconds(m) for _, m in known]
    return go.Scatter(
        x=[p for p, _ in known],
        y=[m.value for _, m in known],
        error_y=_errors([m for _, m in known]),
        customdata=list(zip(intervals, errors, strict=True)),
        hovertemplate="predicted %{x:.4g} ms<br>measured %{customdata[0]}<br>error %{customdata[1]}<extra></extra>",
        mode="markers",
        name="held-out networks",
        marker={"color": SKY, "size": 8, "line": {"color": BLUE, "width": 1}},
    )


def _steps(logs: Sequence[Mapping[str, Any]]) -> tuple[list[float], str]:
    """Position of every log and the name of its unit; logs are counted if positions are missing."""
    for key in POSITIONS:
        found = [float(log[key]) for log in logs if _is_number(log.get(key))]
        if len(found) == len(logs) and all(a <= b for a, b in pairwise(found)):
            return found, key
    return [float(i) for i in range(1, len(logs) + 1)], "record"


def _panels(logs: Sequence[Mapping[str, Any]], metric: Metric) -> dict[str, list[str]]:
    """Axis title -> keys of the logs that share it."""
    keys = dict.fromkeys(k for log in logs for k, v in log.items() if _is_number(v))
    panels: dict[str, list[str]] = {}
    for key in keys:
        if key not in POSITIONS:
            panels.setdefault(_kind(key, metric), []).append(key)
    order = sorted(panels, key=lambda axis: {"loss": 0, metric.name: 1, "latency (ms)": 2}.get(axis, 3))
    return {axis: panels[axis] for axis in order[:PANELS]}


def _kind(key: str, metric: Metric) -> str:
    for name in ("loss", metric.name):
        if name in key:
            return name
    return "latency (ms)" if key.endswith("_ms") else key


def _best_so_far(result: Result, trace: Trace) -> go.Figure | None:
    metric, cost = result.metric, result.cost
    trials = _trials(result, trace) or [
        (i, 0.0, t.metrics[metric.name])
        for i, t in enumerate(trace.trials)
        if t.ok and _is_number(t.metrics.get(metric.name))
    ]
    if not trials:
        return None
    limit = max(p.budget[cost] for p in result.points)
    best: float | None = None
    line: list[tuple[int, float | None]] = []
    for i, spent, value in trials:
        before = best
        if spent <= limit:
            best = value if best is None else metric.best((best, value))
        if len(trials) <= SHOWN or best != before or i == trials[-1][0]:  # a staircase: its corners say it all
            line.append((i, best))
    figure = _figure("Progress of the search", 380)
    dotted = _thinned(figure, trials, "candidates", "the line is of all")
    xs = [i for i, _, _ in dotted]
    dots = {"color": SKY, "size": 6, "opacity": 0.6}
    hover = f"candidate %{{x}}: {_y(metric)}<extra></extra>"
    ys = [a for _, _, a in dotted]
    figure.add_trace(go.Scatter(x=xs, y=ys, mode="markers", marker=dots, name="candidates", hovertemplate=hover))
    style = {"color": BLUE, "width": 2, "shape": "hv"}
    name = "best within the budget"
    steps, bests = zip(*line, strict=True)
    figure.add_trace(go.Scatter(x=steps, y=bests, mode="lines", line=style, name=name, hovertemplate=hover))
    figure.update_xaxes(title_text="candidate")
    figure.update_yaxes(**quality_axis(metric))
    figure.update_yaxes(title_text=f"estimated {metric.name}")
    return figure


def _spread(moments: Sequence[Moment]) -> list[Moment]:
    """The first, the last and evenly spaced ones between."""
    if len(moments) <= PANELS:
        return list(moments)
    return [moments[round(i * (len(moments) - 1) / (PANELS - 1))] for i in range(PANELS)]


def _heatmap(moment: Moment, names: list[str], choices: Sequence[Choice]) -> go.Heatmap:
    grid = moment.probabilities
    widest = max(map(len, grid))
    values = [[*row, *[None] * (widest - len(row))] for row in grid]
    options = [_options(choices[i], widest) for i in range(len(grid))]
    return go.Heatmap(
        z=values,
        x=list(range(1, widest + 1)),
        y=_labels(names),
        customdata=options,
        coloraxis="coloraxis",
        hovertemplate="%{y} = %{customdata}<br>probability %{z:.3f}<extra></extra>",
        hoverongaps=False,
        xgap=1,
        ygap=1,
    )


def _options(choice: Choice, count: int) -> list[str]:
    known = [html.escape(text(o)) for o in choice.options]
    return [known[i] if i < len(known) else f"option {i + 1}" for i in range(count)]


def _dtick(moments: Sequence[Moment]) -> int:
    return max(1, max(len(row) for m in moments for row in m.probabilities) // 6)


def _colourbar() -> dict[str, Any]:
    return {"title": {"text": "probability", "side": "right"}, "thickness": 12, "outlinewidth": 0}


def _stage_label(stage: Stage) -> str:
    parts = [duration(stage.seconds)]
    for count, word in ((stage.networks_trained, "trained"), (stage.networks_measured, "measured")):
        if count:
            parts.append(f"{digits(count) if count % 1 else int(count)} {word}")
    return ", ".join(parts)

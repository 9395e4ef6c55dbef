"""Plotly figures of a run: pure functions of its result, each None when there is nothing to draw.

Colours are those of M. Okabe and K. Ito's palette, which people with colour-blindness can tell apart. Backgrounds are
transparent and the ink is left to the page, so that one figure serves light, dark and print.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sartor.report.front import pareto
from sartor.report.result import (
    Measured,
    Network,
    Raw,
    Result,
    amount,
    bound,
    digits,
    duration,
    mapping,
    name_of,
    number,
    numbers,
    read,
    rows,
    text,
)
from sartor.report.table import milliseconds, percent

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


def figures(result: Raw) -> dict[str, go.Figure]:
    """Every figure that the decoded `result.json` allows, by name, in the order of the page."""
    return draw(read(result))


def draw(result: Result) -> dict[str, go.Figure]:
    """As `figures`, of a result that is already read."""
    makers: dict[str, Callable[[Result], go.Figure | None]] = {
        "trade_off": trade_off,
        "widths": widths,
        "removals": removals,
        "operations": operations,
        "prediction": prediction,
        "progress": progress,
        "narrowing": narrowing,
        "stages": stages,
    }
    drawn = {name: make(result) for name, make in makers.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def trade_off(result: Result) -> go.Figure | None:
    """Accuracy against the budget's cost: the search's candidates, the verified networks, the budgets, the front."""
    metric, trials = result.metric, _trials(result)
    verified = [n for n in result.networks if n.accuracy and n.cost(metric)]
    if not trials and not verified:
        return None
    apart = _apart(trials, verified)
    figure = _figure(f"Accuracy against {name_of(metric)}", 620 if apart else 460, 2 if apart else 1)
    below = 2 if apart else 1
    _add_trials(figure, trials, metric, below)
    for network_label, colour, symbol, size in MARKS:
        group = [n for n in verified if n.label == network_label]
        if group:
            figure.add_trace(_verified(group, metric, colour, symbol, size), row=1, col=1)
    for fitting in result.fittings:
        for name, limit in fitting.limits.items():
            if name == metric:
                # Upright, so that budgets close to each other stay readable on a phone.
                note: dict[str, Any] = {
                    "annotation_text": f"budget {bound(metric, limit)}",
                    "annotation_font_color": RED,
                }
                note |= {"annotation_textangle": -90, "annotation_position": "bottom right"}
                figure.add_vline(x=limit, line={"color": RED, "dash": "dash", "width": 1.5}, row="all", **note)
    figure.update_xaxes(**_cost_axis(metric), title_text="")
    figure.update_xaxes(title_text=_axis_title(metric), row=below, col=1)
    figure.update_yaxes(title_text="accuracy", tickformat=".1%")
    if apart:
        figure.update_yaxes(title_text="verified accuracy", row=1, col=1)
        figure.update_yaxes(title_text="estimate in the search", row=2, col=1)
        figure.layout.annotations = [a for a in figure.layout.annotations if a.xref == "x"]
    return figure


def widths(result: Result) -> go.Figure | None:
    """Channels of every layer: reference, winner, and uniform or, where that has won, the search's own network.

    Further budgets wait in the legend.
    """
    compared, apart = _compared(result), _switches(result)
    known = [
        (name, found, colour, shown) for name, n, colour, shown in compared if (found := _numeric(n.widths, apart))
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
        (name, {k: v for k, v in _numeric(n.widths).items() if k in switches}, colour)
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
    known = [(name, found, colour, shown) for name, n, colour, shown in compared if (found := _worded(n.widths))]
    if not known:
        return None
    blocks = list(dict.fromkeys(block for _, found, _, _ in known for block in found))
    if len(blocks) > MANY:
        blocks = [b for b in blocks if len({found.get(b) for _, found, _, _ in known}) > 1]
        if not blocks:
            return None
    listed = [text(o) for choice in rows(result.search.get("choices")) for o in _listed(choice)]
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
    heldout = [(p, m) for p, m in ((number(h.get("predicted")), measured_of(h)) for h in _heldout(result)) if p and m]
    verified = [n for n in result.networks if n.predicted_latency_ms and n.latency_ms]
    if not heldout:
        return None
    figure = _figure("Predicted against measured latency", 480)
    figure.add_trace(_heldout_trace(heldout))
    for label, colour, symbol, size in MARKS:
        pairs = [(n.predicted_latency_ms or 0.0, n.latency_ms) for n in verified if n.label == label and n.latency_ms]
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


def progress(result: Result) -> go.Figure | None:
    """Losses, accuracies and costs that the search wrote down; without them, the best accuracy after every trial."""
    history = rows(result.search.get("history"))
    panels = _panels(history)
    if not panels:
        return _best_so_far(result)
    step, unit = _steps(history)
    figure = _figure("Progress of the search", 140 + 200 * len(panels), len(panels))
    colours = (BLUE, ORANGE, GREEN, RED, SKY, GREY)
    drawn = 0
    for row, (axis, keys) in enumerate(panels.items(), start=1):
        for key in keys:
            pairs = [
                (x, y)
                for x, y in ((x, number(h.get(key))) for x, h in zip(step, history, strict=True))
                if y is not None
            ]
            line = {"color": colours[drawn % len(colours)], "width": 2}
            mode = "lines" if len(pairs) > 1 else "markers"
            xs, ys = zip(*pairs, strict=True)
            hover = f"{unit} %{{x}}<br>{html.escape(key)}: %{{y:.4g}}<extra></extra>"
            trace = go.Scatter(x=xs, y=ys, mode=mode, line=line, name=html.escape(key), hovertemplate=hover)
            figure.add_trace(trace, row=row, col=1)
            drawn += 1
        figure.update_yaxes(title_text=html.escape(axis), row=row, col=1)
        if axis == "accuracy":
            figure.update_yaxes(tickformat=".0%", row=row, col=1)
    figure.update_xaxes(title_text=unit, row=len(panels), col=1)
    return figure


def narrowing(result: Result) -> go.Figure | None:
    """How the probability of drawing each option moved while the search narrowed: a heat map at up to four moments."""
    kept = [(n.get("epoch"), _grid(n.get("probabilities"))) for n in rows(result.search.get("narrowing"))]
    moments = _spread([(epoch, grid) for epoch, grid in kept if grid])
    if not moments:
        return None
    choices = rows(result.search.get("choices"))
    most = max(len(grid) for _, grid in moments)
    names = [text(choices[i].get("name")) if i < len(choices) else f"choice {i}" for i in range(most)]
    titles = [f"epoch {text(epoch) or '?'}" for epoch, _ in moments]
    figure = make_subplots(
        rows=1, cols=len(moments), shared_yaxes=True, subplot_titles=_labels(titles), horizontal_spacing=0.015
    )
    for column, (_, grid) in enumerate(moments, start=1):
        figure.add_trace(_heatmap(grid, names, choices), row=1, col=column)
    _style(figure, "How the search narrowed the choices", 190 + 22 * most)
    figure.update_layout(coloraxis={"colorscale": "Cividis", "cmin": 0, "cmax": 1, "colorbar": _colourbar()})
    figure.update_xaxes(title_text="option", showgrid=False, dtick=_dtick(moments), zeroline=False)
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    return figure


def stages(result: Result) -> go.Figure | None:
    """Seconds of every stage, with the networks that it trained and measured."""
    known = [(s, number(s.get("seconds"))) for s in result.stages]
    timed = [(s, seconds) for s, seconds in known if seconds is not None]
    if not timed:
        return None
    names = _labels([text(s.get("name")) or "unnamed" for s, _ in timed])
    spent = [seconds for _, seconds in timed]
    figure = _figure("Time spent", 130 + 34 * len(timed))
    hover = [_stage_label(s, seconds) for s, seconds in timed]
    style: dict[str, Any] = {"orientation": "h", "marker_color": BLUE, "textposition": "outside", "cliponaxis": False}
    style["hovertemplate"] = "%{y}: %{customdata}<extra></extra>"
    figure.add_trace(
        go.Bar(x=spent, y=names, text=[duration(v) for v in spent], customdata=hover, showlegend=False, **style)
    )
    figure.update_xaxes(title_text="time (s)", range=[0, 1.3 * max([*spent, 1e-9])])
    figure.update_yaxes(autorange="reversed", type="category", showgrid=False)
    return figure


def measured_of(heldout: Raw) -> Measured | None:
    """The measured latency of a held-out network, with its interval."""
    value = number(heldout.get("measured"))
    if value is None:
        return None
    low, high = number(heldout.get("low")), number(heldout.get("high"))
    return Measured(value, value if low is None else min(low, value), value if high is None else max(high, value))


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


def _trials(result: Result) -> list[tuple[int, float, float]]:
    """Index, cost and estimated accuracy of the usable trials."""
    found = []
    for i, trial in enumerate(rows(result.search.get("trials"))):
        cost, accuracy = number(trial.get(result.metric)), number(trial.get("accuracy"))
        if cost is not None and accuracy is not None and not trial.get("error"):
            found.append((i, cost, accuracy))
    return found


def _apart(trials: Sequence[tuple[int, float, float]], verified: Sequence[Network]) -> bool:
    """Whether estimates and verified accuracies are so far from each other that one axis would flatten both."""
    exact = [n.accuracy.value for n in verified if n.accuracy]
    estimated = [a for _, _, a in trials]
    if not exact or not estimated:
        return False
    gap = max(min(exact) - max(estimated), min(estimated) - max(exact))
    return gap > 0.5 * max(max(exact) - min(exact), max(estimated) - min(estimated), 0.01)


def _add_trials(figure: go.Figure, trials: Sequence[tuple[int, float, float]], metric: str, row: int) -> None:
    if not trials:
        return
    every = -(-len(trials) // SHOWN)
    dots = trials[::every]
    cost = f"modelled {name_of(metric)} %{{x:.4~g}} ms" if metric.endswith("_ms") else f"{name_of(metric)} %{{x:.4~s}}"
    hover = f"candidate %{{customdata}}<br>{cost}<br>estimated accuracy %{{y:.2%}}<extra></extra>"
    best = [trials[i] for i in pareto([(c, a) for _, c, a in trials])]
    looks: list[tuple[str, Sequence[tuple[int, float, float]], dict[str, Any]]] = [
        ("candidates (estimates)", dots, {"mode": "markers", "marker": {"color": SKY, "size": 6, "opacity": 0.55}}),
        ("best estimates", best, {"mode": "lines", "line": {"color": GREEN, "width": 2, "shape": "hv"}}),
    ]
    for name, points, look in looks:
        indices, costs, accuracies = zip(*points, strict=True)
        trace = go.Scatter(x=costs, y=accuracies, customdata=indices, name=name, hovertemplate=hover, **look)
        figure.add_trace(trace, row=row, col=1)


def _verified(group: Sequence[Network], metric: str, colour: str, symbol: str, size: int) -> go.Scatter:
    ordered = sorted(group, key=lambda n: n.cost(metric).value)  # type: ignore[union-attr]  # filtered by the caller
    costs = [c for c in (n.cost(metric) for n in ordered) if c]
    accuracies = [n.accuracy for n in ordered if n.accuracy]
    hover = [f"{n.label}: {percent(n.accuracy)}<br>{_costs(n)}" for n in ordered]
    return go.Scatter(
        x=[c.value for c in costs],
        y=[a.value for a in accuracies],
        error_x=_errors(costs),
        error_y=_errors(accuracies),
        text=hover,
        hovertemplate="%{text}<extra></extra>",
        mode="lines+markers" if len(group) > 1 else "markers",
        name=group[0].label,
        marker={"color": colour, "symbol": symbol, "size": size},
        line={"color": colour, "width": 1, "dash": "dot"},
    )


def _costs(network: Network) -> str:
    parts = [milliseconds(network.latency_ms)] if network.latency_ms else []
    parts += [f"{amount(m, c.value)} {name_of(m)}" for m in ("macs", "params") if (c := network.cost(m))]
    return "<br>".join(parts)


def _errors(values: Sequence[Measured]) -> dict[str, Any]:
    above, below = [v.high - v.value for v in values], [v.value - v.low for v in values]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "width": 4, "thickness": 1.5}


def _compared(result: Result) -> list[tuple[str, Network, str, bool]]:
    """Name, network, colour and whether it shows at once, of what is compared choice by choice."""
    found: list[tuple[str, Network | None, str, bool]] = [("reference", result.reference, GREY, True)]
    for i, fitting in enumerate(result.fittings):
        suffix = " @ " + ", ".join(bound(m, v) for m, v in fitting.limits.items()) if len(result.fittings) > 1 else ""
        found += [
            (f"winner{suffix}", fitting.winner, BLUE, i == 0),
            (f"uniform{suffix}", None if fitting.searched else fitting.uniform, ORANGE, i == 0),
            (f"searched{suffix}", fitting.searched, PURPLE, i == 0),
        ]
    return [(name, n, colour, shown) for name, n, colour, shown in found if n]


def _switches(result: Result) -> set[str]:
    """Choices that say whether a layer or block is there."""
    choices = rows(result.search.get("choices"))
    return {text(c.get("name")) for c in choices if list(c.get("options") or ()) in ([0, 1], [False, True])}


def _worded(found: Mapping[str, Any]) -> dict[str, str]:
    return {block: text(v) for block, v in found.items() if isinstance(v, str)}


def _listed(choice: Raw) -> Sequence[Any]:
    """The options of a choice that are words."""
    options = choice.get("options")
    return [o for o in options if isinstance(o, str)] if isinstance(options, (list, tuple)) else []


def _numeric(found: Mapping[str, Any], without: Collection[str] = ()) -> dict[str, float]:
    known = ((layer, number(v)) for layer, v in found.items() if layer not in without)
    return {layer: n for layer, n in known if n is not None}


def _heldout(result: Result) -> list[dict[str, Any]]:
    return rows(result.latency_model.get("heldout"))


def _heldout_trace(pairs: Sequence[tuple[float, Measured | None]]) -> go.Scatter:
    known = [(p, m) for p, m in pairs if m]
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


def _steps(history: Sequence[Raw]) -> tuple[list[float], str]:
    """Position of every history entry and the name of its unit; entries are counted if positions are missing."""
    for key in POSITIONS:
        found = numbers([h.get(key) for h in history])
        if len(found) == len(history) and all(a <= b for a, b in pairwise(found)):
            return found, key
    return [float(i) for i in range(1, len(history) + 1)], "record"


def _panels(history: Sequence[Raw]) -> dict[str, list[str]]:
    """Axis title -> keys of the history that share it."""
    keys = dict.fromkeys(k for h in history for k, v in h.items() if number(v) is not None)
    panels: dict[str, list[str]] = {}
    for key in keys:
        if key not in POSITIONS:
            panels.setdefault(_kind(key), []).append(key)
    order = sorted(panels, key=lambda axis: {"loss": 0, "accuracy": 1, "latency (ms)": 2}.get(axis, 3))
    return {axis: panels[axis] for axis in order[:PANELS]}


def _kind(key: str) -> str:
    for word, axis in (("loss", "loss"), ("acc", "accuracy")):
        if word in key:
            return axis
    return "latency (ms)" if key.endswith("_ms") else key


def _best_so_far(result: Result) -> go.Figure | None:
    trials = _trials(result) or [
        (i, 0.0, a)
        for i, a in enumerate(number(t.get("accuracy")) for t in rows(result.search.get("trials")))
        if a is not None
    ]
    if not trials:
        return None
    limit = max((f.limits[result.metric] for f in result.fittings if result.metric in f.limits), default=float("inf"))
    best, line = 0.0, []
    for i, cost, accuracy in trials:
        best = max(best, accuracy) if cost <= limit else best
        line.append((i, best or None))
    figure = _figure("Progress of the search", 380)
    xs = [i for i, _, _ in trials]
    dots = {"color": SKY, "size": 6, "opacity": 0.6}
    hover = "candidate %{x}: %{y:.2%}<extra></extra>"
    ys = [a for _, _, a in trials]
    figure.add_trace(go.Scatter(x=xs, y=ys, mode="markers", marker=dots, name="candidates", hovertemplate=hover))
    style = {"color": BLUE, "width": 2, "shape": "hv"}
    name = "best within the budget" if limit < float("inf") else "best so far"
    figure.add_trace(go.Scatter(x=xs, y=[b for _, b in line], mode="lines", line=style, name=name, hovertemplate=hover))
    figure.update_xaxes(title_text="candidate")
    figure.update_yaxes(title_text="estimated accuracy", tickformat=".1%")
    return figure


def _grid(raw: Any) -> list[list[float]]:
    grid = [numbers(row) for row in raw] if isinstance(raw, (list, tuple)) else []
    return grid if any(grid) else []


def _spread(moments: list[tuple[Any, list[list[float]]]]) -> list[tuple[Any, list[list[float]]]]:
    """The first, the last and evenly spaced ones between."""
    if len(moments) <= PANELS:
        return moments
    return [moments[round(i * (len(moments) - 1) / (PANELS - 1))] for i in range(PANELS)]


def _heatmap(grid: list[list[float]], names: list[str], choices: Sequence[Raw]) -> go.Heatmap:
    widest = max(len(row) for row in grid)
    values = [[*row, *[None] * (widest - len(row))] for row in grid]
    options = [_options(choices[i] if i < len(choices) else {}, widest) for i in range(len(grid))]
    return go.Heatmap(
        z=values,
        x=list(range(1, widest + 1)),
        y=_labels(names[: len(grid)]),
        customdata=options,
        coloraxis="coloraxis",
        hovertemplate="%{y} = %{customdata}<br>probability %{z:.3f}<extra></extra>",
        hoverongaps=False,
        xgap=1,
        ygap=1,
    )


def _options(choice: Raw, count: int) -> list[str]:
    listed = choice.get("options")
    known = [html.escape(text(o)) for o in listed] if isinstance(listed, (list, tuple)) else []
    return [known[i] if i < len(known) else f"option {i + 1}" for i in range(count)]


def _dtick(moments: Sequence[tuple[Any, list[list[float]]]]) -> int:
    return max(1, max(len(row) for _, grid in moments for row in grid) // 6)


def _colourbar() -> dict[str, Any]:
    return {"title": {"text": "probability", "side": "right"}, "thickness": 12, "outlinewidth": 0}


def _stage_label(stage: Raw, seconds: float) -> str:
    parts = [duration(seconds)]
    for key, word in (("networks_trained", "trained"), ("networks_measured", "measured")):
        count = number(mapping(stage).get(key))
        if count:
            parts.append(f"{digits(count) if count % 1 else int(count)} {word}")
    return ", ".join(parts)

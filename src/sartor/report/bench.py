"""What `sartor bench` found: a table for the terminal, curves as CSV and PNG, and one HTML page."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.table import Table

from sartor.report.page import document
from sartor.report.plots import BLUE, GREEN, GREY, ORANGE, RED, SKY

COLOURS = (BLUE, RED, GREEN, ORANGE, SKY, "#CC79A7", GREY, "#000000")
SIGNIFICANT = 0.05

Floats = NDArray[np.float64]
Curves = Mapping[str, Floats]
Timed = Mapping[str, tuple[Floats, Floats]]


class View(NamedTuple):
    """Curves to draw.

    Attributes:
        axis: Of what they are functions.
        bands: Strategy -> where, mean, median, quartiles, `(5, points)`; the best strategy first.
        low: The lower end of the axis of values: what happens before would take most of it.
    """

    axis: str
    bands: Mapping[str, Floats]
    low: float


def write(found: Mapping[str, Any], curves: Curves, folder: Path, timed: Timed | None = None) -> None:
    """Write `bench.json`, `curves.csv`, `bench.png` and `bench.html` to `folder`.

    Args:
        found: What `sartor.jobs.bench` found.
        curves: Strategy -> the best value after each evaluation, `(runs, evaluations)`.
        folder: Where to.
        timed: Strategy -> seconds of training, `(points,)`, and the best values there, `(runs, points)`; if there are
            any, `curves_seconds.csv` has them, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name, _ in _ranked(found)]
    views = [_by_evaluations({name: curves[name] for name in names})]
    if timed:
        views.append(_by_seconds({name: timed[name] for name in names}))
        (folder / "curves_seconds.csv").write_text(_csv("seconds", views[1]), encoding="utf-8")
    (folder / "bench.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "curves.csv").write_text(_csv("evaluations", views[0]), encoding="utf-8")
    (folder / "bench.png").write_bytes(_png(found, views))
    (folder / "bench.html").write_text(_page(found, views), encoding="utf-8")


def overview(found: Mapping[str, Any]) -> Table:
    """One row per strategy, the best first."""
    table = Table(title=_title(found), caption=_caption(found), title_justify="left", caption_justify="left", box=None)
    for column in _columns(found):
        table.add_column(column, justify="left" if column == "strategy" else "right")
    for name, row in _ranked(found):
        table.add_row(name, *_cells(row))
    return table


def sentences(found: Mapping[str, Any]) -> Iterator[str]:
    """What can be said about the order, with the chance that it is luck."""
    for test in found["tests"]:
        better, worse = (test["a"], test["b"]) if test["difference"] >= 0 else (test["b"], test["a"])
        if test["p"] < SIGNIFICANT:
            yield f"{better} ends {abs(test['difference']):.3f} above {worse} (p = {test['p']:.1g})"
        else:
            yield f"{better} and {worse} cannot be told apart (p = {test['p']:.2f})"


def _ranked(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return sorted(found["strategies"].items(), key=lambda item: -item[1]["mean"])


def _columns(found: Mapping[str, Any]) -> list[str]:
    marks = next(iter(found["strategies"].values()))["at"]
    return ["strategy", *(f"at {m}" for m in marks), "final", "median", "25-75 %", "seconds"]


def _cells(row: Mapping[str, Any]) -> list[str]:
    means = [f"{value:.3f}" for value in row["at"].values()]
    spread = f"{row['mean']:.3f} ± {row['std']:.3f}"
    return [*means, spread, f"{row['median']:.3f}", f"{row['q25']:.3f}-{row['q75']:.3f}", f"{row['seconds']:.1f}"]


def _title(found: Mapping[str, Any]) -> str:
    space = found["space"] if isinstance(found["space"], str) else found["space"]["name"]
    bounds = ", ".join(f"{metric} <= {bound:g}" for metric, bound in found["budget"].items()) or "no budget"
    return f"{space} on {found['dataset']}, {bounds}: {found['runs']} runs of {found['evaluations']} evaluations each"


def _caption(found: Mapping[str, Any]) -> str:
    noise = f" with noise of {found['noise']:g} points" if found["noise"] else ""
    return (
        f"Shown is {found['reported']} of the best network so far by {found['signal']}{noise}, mean over runs; "
        f"the best that there is: {found['optimum']:.3f}"
    )


def _by_evaluations(curves: Curves) -> View:
    """From the first evaluation at which all runs have a value."""
    bands = {}
    for name, curve in curves.items():
        known = np.flatnonzero(~np.isnan(curve).any(0))
        bands[name] = _band((known + 1).astype(np.float64), curve[:, known])
    tenth = [curve[:, min(9, curve.shape[1] - 1)] for curve in curves.values()]
    return View("evaluations", bands, _least(bands, [c[~np.isnan(c)] for c in tenth]))


def _by_seconds(timed: Timed) -> View:
    bands = {name: _band(times, values) for name, (times, values) in timed.items()}
    early = [values[:, len(times) // 2] for times, values in timed.values() if len(times)]
    return View("seconds of training, by the table", bands, _least(bands, early))


def _band(x: Floats, values: Floats) -> Floats:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    return np.stack([x, values.mean(0), middle, low, high])


def _least(bands: Mapping[str, Floats], early: Sequence[Floats]) -> float:
    """The lowest quartile early on; never above a final one."""
    found = [float(np.quantile(values, 0.25)) for values in early if len(values)]
    return min(found + [float(band[3, -1]) for band in bands.values() if band.shape[1]])


def _csv(axis: str, view: View) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["strategy", axis, "mean", "median", "q25", "q75"])
    for name, band in view.bands.items():
        for row in band.T.tolist():
            writer.writerow([name, *(f"{value:.6g}" for value in row)])
    return text.getvalue()


def _png(found: Mapping[str, Any], views: Sequence[View]) -> bytes:
    figure = Figure(figsize=(8, 5 * len(views)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, view in zip(figure.subplots(len(views), squeeze=False)[:, 0], views, strict=True):
        for i, (name, (x, mean, _, low, high)) in enumerate(view.bands.items()):
            colour = COLOURS[i % len(COLOURS)]
            axes.plot(x, mean, color=colour, label=name)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.axhline(found["optimum"], color=GREY, linestyle=":", label="best in the table")
        axes.set(xscale="log", xlabel=view.axis, ylabel=found["reported"], ylim=_span(found, view))
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    figure.axes[0].set_title(_title(found), fontsize=9)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _span(found: Mapping[str, Any], view: View) -> tuple[float, float]:
    """The ends of the axis."""
    room = max(found["optimum"] - view.low, 1e-3)
    return view.low - 0.05 * room, found["optimum"] + 0.05 * room


def _plot(found: Mapping[str, Any], view: View) -> go.Figure:
    figure = go.Figure()
    for i, (name, (x, mean, middle, low, high)) in enumerate(view.bands.items()):
        colour = COLOURS[i % len(COLOURS)]
        plain = re.sub(r"[<>&]", "", name)
        edge = {"mode": "lines", "line": {"width": 0}, "legendgroup": name, "showlegend": False, "hoverinfo": "skip"}
        figure.add_scatter(x=x, y=high, **edge)
        figure.add_scatter(x=x, y=low, fill="tonexty", fillcolor=_faint(colour), **edge)
        figure.add_scatter(
            x=x,
            y=mean,
            name=plain,
            legendgroup=name,
            mode="lines",
            line={"color": colour, "width": 2.5},
            customdata=middle,
            hovertemplate="%{y:.3f} mean, %{customdata:.3f} median",
        )
    figure.add_hline(y=found["optimum"], line={"dash": "dot", "color": GREY}, annotation_text="best in the table")
    figure.update_layout(
        xaxis={"type": "log", "title": view.axis},
        yaxis={"title": found["reported"], "range": _span(found, view)},
        hovermode="x unified",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"t": 20, "r": 20},
        height=520,
    )
    return figure


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def _page(found: Mapping[str, Any], views: Sequence[View]) -> str:
    said = "".join(f"<li>{html.escape(s)}</li>" for s in sentences(found))
    rows = [[name, *_cells(row)] for name, row in _ranked(found)]
    plots = [str(_plot(found, view).to_json()).replace("</", "<\\/") for view in views]
    return document(
        _title(found),
        (
            f'<header><h1>{html.escape(_title(found))}</h1><p class="soft">sartor bench</p></header>',
            f"<section><h2>Best network so far</h2><p>{html.escape(_caption(found))}. Lines are means, bands hold the "
            'middle half of the runs.</p><div id="curves0"></div></section>',
            f"<section><h2>Figures</h2>{_table(_columns(found), rows)}</section>",
            *_times(found, views),
            "<section><h2>What is more than luck</h2><p>Mann-Whitney's test on the final values of the runs, with "
            f"Holm's correction for the number of pairs.</p><ul>{said}</ul></section>",
        ),
        "const settings = {responsive: true, displaylogo: false};\n"
        + "".join(
            f"const figure{i} = {plot};\nPlotly.newPlot('curves{i}', figure{i}.data, figure{i}.layout, settings);\n"
            for i, plot in enumerate(plots)
        ),
    )


def _times(found: Mapping[str, Any], views: Sequence[View]) -> Iterator[str]:
    """The section on simulated cost, where the table has times."""
    if len(views) < 2:
        return
    rows = {name: row["at_seconds"] for name, row in _ranked(found)}
    marks = sorted({mark for row in rows.values() for mark in row}, key=float)
    cells = [[name, *(f"{row[m]:.3f}" if m in row else "" for m in marks)] for name, row in rows.items()]
    yield (
        "<section><h2>Against the cost</h2><p>Evaluations differ in cost. What the trainings of a run would have taken "
        "by the table, from where all runs have a value to where half of them have ended; the means:</p>"
        f'<div id="curves1"></div>{_table(["strategy", *(f"at {m} s" for m in marks)], cells)}</section>'
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"

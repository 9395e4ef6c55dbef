"""What `sartor bench` found: a table for the terminal, curves as CSV and PNG, and one HTML page."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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

Curves = Mapping[str, NDArray[np.float64]]


def write(found: Mapping[str, Any], curves: Curves, folder: Path) -> None:
    """Write `bench.json`, `curves.csv`, `bench.png` and `bench.html` to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "curves.csv").write_text(_csv(curves), encoding="utf-8")
    (folder / "bench.png").write_bytes(_png(found, curves))
    (folder / "bench.html").write_text(_page(found, curves), encoding="utf-8")


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


def _band(curve: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Number of evaluations, mean, median and quartiles, from the first evaluation at which all runs have a value."""
    known = np.flatnonzero(~np.isnan(curve).any(0))
    inside = curve[:, known]
    low, middle, high = np.quantile(inside, [0.25, 0.5, 0.75], axis=0)
    return (known + 1).astype(float), inside.mean(0), middle, low, high


def _csv(curves: Curves) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["strategy", "evaluations", "mean", "median", "q25", "q75"])
    for name, curve in curves.items():
        for row in zip(*_band(curve), strict=True):
            writer.writerow([name, int(row[0]), *(f"{float(v):.6g}" for v in row[1:])])
    return text.getvalue()


def _png(found: Mapping[str, Any], curves: Curves) -> bytes:
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for i, (name, _) in enumerate(_ranked(found)):
        x, mean, _, low, high = _band(curves[name])
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(x, mean, color=colour, label=name)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(found["optimum"], color=GREY, linestyle=":", label="best in the table")
    axes.set(xscale="log", xlabel="evaluations", ylabel=found["reported"], ylim=_span(found, curves))
    axes.set_title(_title(found), fontsize=9)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _span(found: Mapping[str, Any], curves: Curves) -> tuple[float, float]:
    """The ends of the axis: what happens before the tenth evaluation would take most of it."""
    low = min(float(np.nanquantile(curve[:, min(9, curve.shape[1] - 1)], 0.25)) for curve in curves.values())
    room = max(found["optimum"] - low, 1e-3)
    return low - 0.05 * room, found["optimum"] + 0.05 * room


def _plot(found: Mapping[str, Any], curves: Curves) -> go.Figure:
    figure = go.Figure()
    for i, (name, _) in enumerate(_ranked(found)):
        x, mean, middle, low, high = _band(curves[name])
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
        xaxis={"type": "log", "title": "evaluations"},
        yaxis={"title": found["reported"], "range": _span(found, curves)},
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


def _page(found: Mapping[str, Any], curves: Curves) -> str:
    head = "".join(f"<th>{column}</th>" for column in _columns(found))
    body = "".join(
        f"<tr><td>{html.escape(name)}</td>" + "".join(f"<td>{cell}</td>" for cell in _cells(row)) + "</tr>"
        for name, row in _ranked(found)
    )
    said = "".join(f"<li>{html.escape(s)}</li>" for s in sentences(found))
    figure = str(_plot(found, curves).to_json()).replace("</", "<\\/")
    return document(
        _title(found),
        (
            f'<header><h1>{html.escape(_title(found))}</h1><p class="soft">sartor bench</p></header>',
            f"<section><h2>Best network so far</h2><p>{html.escape(_caption(found))}. Lines are means, bands hold the "
            'middle half of the runs.</p><div id="curves"></div></section>',
            f"<section><h2>Figures</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></section>",
            "<section><h2>What is more than luck</h2><p>Mann-Whitney's test on the final values of the runs, with "
            f"Holm's correction for the number of pairs.</p><ul>{said}</ul></section>",
        ),
        f"const figure = {figure};\n"
        "Plotly.newPlot('curves', figure.data, figure.layout, {responsive: true, displaylogo: false});",
    )

"""One self-contained HTML page of a run: a pure function of its result and of what its search wrote down.

Everything is inline, and a content security policy forbids the page to fetch anything: it works from a mail attachment
on a machine without a network, and nothing in a result can run as a script.
"""

from __future__ import annotations

import html
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from sartor.core.files import atomically
from sartor.core.metrics import Metric, Score
from sartor.core.records import Estimate
from sartor.report.format import (
    Shown,
    amount,
    capital,
    digits,
    duration,
    human,
    limits_of,
    name_of,
    networks_at,
    networks_of,
    text,
)
from sartor.report.plots import draw
from sartor.report.table import gain, gain_sentence
from sartor.run.result import LatencyModel, Point, Result, Trace, read

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

CHOSEN = ("widths", "removals", "operations")
"""Figures of what the networks are, choice by choice; one table says the same."""
ABOUT = {
    "trade_off": (
        "Large markers are trained networks measured on the target, with their confidence intervals where there are "
        "any: {better} and left is better, and the dashed line is the budget. Small dots are candidates as the search "
        "saw them, with estimated {metric} and modelled cost: compare them with each other, not with the large markers."
    ),
    "widths": (
        "Where the search's network (the winner, or searched where that is shown) keeps channels that uniform scaling "
        "gives away, the search found that they matter; where its bars are shorter, they cost more time than they were "
        "worth. Click a name in the legend to hide or show it."
    ),
    "removals": (
        "One row per network: a square for what it still has, a cross for what it goes without. Values pass what is "
        "gone unchanged."
    ),
    "operations": (
        "One line per operation, from the first to the last of the options; where two networks do the same in a block, "
        "their markers stand side by side. Where the winner does more than uniform scaling, the search found that it "
        "matters there; where it does less, that it cost more time than it was worth."
    ),
    "prediction": (
        "Each dot is a network that the latency model had not seen. On the dotted line the prediction is exact; above "
        "it, the network is slower than predicted. The verdict never relies on the model, only on measurements."
    ),
    "progress": (
        "What the search wrote down while it ran. Curves that have become flat say that more of the same search would "
        "hardly help; curves that still move say that it stopped early."
    ),
    "narrowing": (
        "One row per layer, one column per option, from the first (for widths: the narrowest) to the last; bright is "
        "likely. A row with one bright cell is a choice on which the search has settled."
    ),
    "stages": "What the result has cost, by stage. The table lists the same with the networks trained and measured.",
}
ABSENT = {
    "trade_off": ("Quality against cost", "no network was tested."),
    "widths": ("Width of every layer", "the space has no widths."),
    "prediction": ("Predicted against measured latency", "no latency model was tried on held-out networks."),
    "progress": ("Progress of the search", "the search recorded neither a history nor candidates."),
    "narrowing": ("How the search narrowed the choices", "this search recorded no probabilities."),
    "stages": ("Time spent", "no ledger was recorded."),
}
FILES = {
    "model.onnx": "the network for ONNX Runtime and other runtimes",
    "model.pt2": "the network as a PyTorch program: it loads without sartor and without its source",
    "model.safetensors": "the weights alone",
    "architecture.json": "the chosen options, to build the network from its source",
}


def write_page(folder: Path) -> Path:
    """Write `report.html` of a finished run, atomically.

    Raises:
        StateError: There is no result, or it cannot be read.
    """
    page, whole = folder / "report.html", render(*read(folder), folder)
    atomically(page, lambda part: part.write_text(whole, encoding="utf-8"))
    return page


def render(result: Result, trace: Trace, folder: Path) -> str:
    """The page as text; `folder` is only asked which files it holds, and whether they are those of the result."""
    figures = draw(result, trace)
    sections = [
        _head(result),
        _summary(result),
        _plot("trade_off", figures, result),
        *_choices(result, figures),
        _plot("prediction", figures, result, _model(result.latency_model)),
        _plot("progress", figures, result, _strategy(result)),
        _plot("narrowing", figures, result),
        _plot("stages", figures, result, _spent(result)),
        _use(result, folder),
        _environment(result),
    ]
    return document(result.title, sections, files("sartor.report").joinpath("page.js").read_text() if figures else "")


def document(title: str, sections: Iterable[str], script: str) -> str:
    """A whole page: inline style, nothing fetched.

    Args:
        title: Plain text.
        sections: HTML, from top to bottom.
        script: Run after plotly's own; without one, plotly is left out, too.
    """
    style = files("sartor.report").joinpath("page.css").read_text()
    scripts = f"<script>{get_plotlyjs()}</script>\n<script>{script}</script>" if script else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{_esc(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f"<main>\n{chr(10).join(sections)}\n</main>\n{scripts}\n</body>\n</html>\n"
    )


def _head(result: Result) -> str:
    facts = "".join(f'<div class="fact"><b>{_esc(b)}</b><span>{_esc(s)}</span></div>' for b, s in _facts(result))
    lines = "".join(map(_verdict, result.points))
    return (
        f'<header>\n<h1>{_esc(result.title)}</h1>\n<p class="soft">sartor report: {_esc(result.task)}</p>\n'
        f'{lines}<div class="facts">{facts}</div></header>'
    )


def _verdict(point: Point) -> str:
    sentence = point.sentence.removeprefix(f"{point.verdict}:").strip()
    badge = f'<span class="badge {point.verdict.lower()}">{_esc(point.verdict)}</span>'
    return f'<div class="verdict">{badge}<span>{_esc(sentence)}</span></div>'


def _facts(result: Result) -> Iterator[tuple[str, str]]:
    """Number and caption of the boxes below the headline; of the first budget."""
    point, metric = result.points[0], result.metric
    where = f" at {limits_of(point.budget)}" if len(result.points) > 1 else ""
    yield from _against_reference(result, where)
    found = gain(point, metric)
    if found is not None:
        none = found.low is not None and found.high is not None and found.low <= 0 <= found.high
        yield (
            "no gain" if none else metric.difference(found.value),
            f"{'shown ' if none else ''}{_rival(point)}{where}; {_span(metric, found)}",
        )
    counts = [f"{_total(result, f'networks_{word}')} {word}" for word in ("trained", "measured")]
    yield duration(result.spent.total_seconds), f"in all; networks: {', '.join(counts)}"


def _span(metric: Metric, found: Score) -> str:
    if found.low is None or found.high is None:
        return "no interval"
    low, unit = metric.difference(found.low).partition(" ")[0], metric.difference(found.high)
    return f"interval {low} to {unit}"


def _rival(point: Point) -> str:
    return "against the search's own network" if point.delivered == "uniform" else "over scaling all layers alike"


def _against_reference(result: Result, where: str) -> Iterator[tuple[str, str]]:
    winner, reference, cost, metric = result.points[0].winner, result.reference, result.cost, result.metric
    before, after = reference.cost(cost), winner.cost(cost)
    if after.value > 0:
        words = "the speed of the reference" if cost.endswith("_ms") else f"fewer {name_of(cost)} than the reference"
        yield f"{digits(before.value / after.value)}x", f"{words}{where}"
    old, new = reference.scores.get(metric.name), winner.scores.get(metric.name)
    if old and new:
        better = f" ({'less' if metric.goal == 'min' else 'more'} is better)"
        shown = float(f"{new.value:.4g}") - float(f"{old.value:.4g}")  # of the values as the table shows them
        yield metric.difference(shown), f"{metric.name} against the reference{where}{better}"


def _summary(result: Result) -> str:
    heads = ["network", *(f"{m.name} (test)" for m in result.metrics), "latency", "MACs", "parameters", "peak memory"]
    body = [_network_row(result, Shown("reference", result.reference))]
    for i, point in enumerate(result.points):
        body.append(f'<tr class="budget"><td colspan="{len(heads)}">{_esc(limits_of(point.budget))}</td></tr>')
        body += [_network_row(result, n) for n in networks_at(result, i)]
    won = any(p.delivered == "uniform" for p in result.points)
    searched = " <em>searched</em> is the search's own network." if won else ""
    bare = [m.name for m in result.metrics if not _has_interval(result, m)]
    without = f" There is no interval for {', '.join(bare)}." if bare else ""
    goals = ", ".join(f"{m.name} ({'more' if m.goal == 'max' else 'less'} is better)" for m in result.metrics)
    notes = "".join(f"<p>{_esc(note)}</p>" for note in _notes(result))
    return (
        '<section class="whole"><h2>Result</h2><p class="soft">Measured values with their confidence intervals: '
        f"{_esc(goals)}.{_esc(without)} <em>uniform</em> is the reference made smaller evenly, without a search, to "
        f"the same budget.{searched}</p>{_table(heads, body, 'numbers')}<br>{notes}</section>"
    )


def _has_interval(result: Result, metric: Metric) -> bool:
    scores = (n.entry.scores.get(metric.name) for n in networks_of(result))
    return any(s is not None and s.bounded for s in scores)


def _network_row(result: Result, network: Shown) -> str:
    entry = network.entry
    cells = [
        *(_score(m, entry.scores.get(m.name)) for m in result.metrics),
        _bounded(entry.latency_ms, "ms"),
        _esc(human(entry.macs)),
        _esc(human(entry.params)),
        _esc(human(entry.memory_bytes, "B")),
    ]
    kind = ' class="winner"' if network.label == "winner" else ""
    return f"<tr{kind}><th>{_esc(network.label)}</th>{''.join(f'<td>{c}</td>' for c in cells)}</tr>"


def _score(metric: Metric, score: Score | None) -> str:
    if score is None:
        return "-"
    value = _esc(metric.text(score.value))
    if score.low is None or score.high is None:
        return f"{value} <small>(no interval)</small>"
    return f"{value} <small>({_esc(metric.figure(score.low))}-{_esc(metric.figure(score.high))})</small>"


def _bounded(value: Estimate, unit: str) -> str:
    exact = value.low == value.high
    interval = "" if exact else f" <small>({digits(value.low)}-{digits(value.high)})</small>"
    return f"{digits(value.value)} {unit}{interval}"


def _notes(result: Result) -> Iterator[str]:
    for point in result.points:
        where = f"At {limits_of(point.budget)}: " if len(result.points) > 1 else ""
        sentence = gain_sentence(point, result.metric)
        if sentence:
            yield capital(f"{where}{sentence}.")
        rounds = len(point.tightened)
        if rounds:
            limits = [amount("latency_ms", look.limit) for look in point.tightened]
            yield capital(
                f"{where}the first choice was measured over the budget; the search then aimed at a tighter limit "
                f"{'once' if rounds == 1 else f'{rounds} times'} ({', '.join(limits)})."
            )


def _plot(name: str, figures: Mapping[str, go.Figure], result: Result, more: str = "") -> str:
    figure = figures.get(name)
    if figure is None:
        return _missing(*ABSENT[name], more)
    plain = json.loads(figure.to_json())
    title = plain["layout"].pop("title")["text"]
    plain["layout"]["margin"]["t"] = 40
    thinned = " " + plain["layout"].pop("meta", "")
    wide = " wide" if name in (*CHOSEN, "narrowing") else ""
    about = ABOUT[name].format(metric=result.metric.name, better="up" if result.metric.goal == "max" else "down")
    return (
        f'<section><div class="whole"><h2>{_esc(title)}</h2><p class="soft">{_esc((about + thinned).strip())}</p>'
        f'<div class="scroll"><div class="plot{wide}" id="{name}"></div></div></div>'
        f"{data_of(name, plain)}\n{more}</section>"
    )


def data_of(name: str, figure: Mapping[str, Any]) -> str:
    """A plotly figure as the element that the script draws `name` from."""
    # A script element ends at the first "</", wherever that stands.
    data = json.dumps(figure, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}-data">{data}</script>'


def _missing(title: str, reason: str, more: str = "") -> str:
    return f'<section><h2>{_esc(title)}</h2><p class="missing">Not shown: {_esc(reason)}</p>{more}</section>'


def _choices(result: Result, figures: Mapping[str, go.Figure]) -> Iterator[str]:
    """The widths of every layer, what is gone, the operations of every block; one table of all."""
    drawn = [name for name in CHOSEN if name in figures] or ["widths"]
    for name in drawn:
        yield _plot(name, figures, result, _options_table(result) if name == drawn[-1] else "")


def _options_table(result: Result) -> str:
    networks = networks_of(result)
    layers = dict.fromkeys(layer for n in networks for layer in n.entry.options)
    many = len(result.points) > 1
    heads = ["layer"]
    for network in networks:
        at = f", {limits_of(result.points[network.point].budget)}" if many and network.point is not None else ""
        heads.append(network.label + at)
    body = [_row(layer, [text(n.entry.options.get(layer, "-")) for n in networks]) for layer in layers]
    return f"<details><summary>The same in numbers</summary>{_table(heads, body, 'numbers')}</details>"


def _model(model: LatencyModel | None) -> str:
    if model is None:
        return ""
    error = "not known" if model.nrmse is None else f"NRMSE {100 * model.nrmse:.1f} %"
    words = f"The model in use ({model.kind}) was fitted to {model.training_networks} networks and tried on "
    words += f"{model.heldout_networks} others; its error there: {error}."
    if model.lookup is not None:
        words += f" The plain sums of the table of operators: NRMSE {100 * model.lookup.nrmse:.1f} %."
    return f"<p>{_esc(words)}</p>"


def _strategy(result: Result) -> str:
    search = result.search
    failed = f", {search.failed} of them failed" if search.failed else ""
    words = f"Strategy: {search.strategy}; evaluations: {search.evaluations}{failed}."
    body = [
        f'<tr><th>{_esc(k)}</th><td class="value">{_esc(v)}</td></tr>'
        for k, v in ((k, text(v)) for k, v in _flat(search.settings))
    ]
    table = (
        f"<details><summary>Its settings</summary>{_table(['setting', 'value'], body, 'small')}</details>"
        if body
        else ""
    )
    return f"<p>{_esc(words)}</p>{table}"


def _spent(result: Result) -> str:
    spent = result.spent
    if not spent.stages:
        return ""
    body = [
        _row(s.name, [duration(s.seconds), human(s.networks_trained), human(s.networks_measured)]) for s in spent.stages
    ]
    counts = [str(_total(result, key)) for key in ("networks_trained", "networks_measured")]
    body.append(_row("total", [duration(spent.total_seconds), *counts], "total"))
    table = _table(["stage", "time", "networks trained", "networks measured"], body, "numbers")
    wall = f"<p>Wall time from start to end: {_esc(duration(spent.wall_seconds))}.</p>"
    return f'<div class="whole">{table}</div><br>{wall}'


def _use(result: Result, folder: Path) -> str:
    many = len(result.points) > 1
    places = [(where, budget, held) for where, budget in _places(result) if (held := _held(folder / where))]
    digests = {name: (digest, "") for name, digest in result.files.items()}
    digests |= {name: (result.files[name], how) for name, how in result.changed(folder).items()}
    found = "".join(_files_table(where, budget if many else "", held, digests) for where, budget, held in places)
    if places:
        where, _, held = places[0]
        code = "\n\n".join(_code(held, f"{where}/" if where else ""))
        found += f'<div class="whole"><p>To load it without sartor:</p><pre>{_esc(code)}</pre></div>'
    else:
        found = '<p class="missing">This folder holds no model files.</p>'
    command = f"sartor verify {shlex.quote(folder.resolve().name)}"
    return (
        f'<section><h2>Use and check the result</h2>{found}<div class="whole"><p>To measure the winner again, on this '
        "machine or another, and compare it with its budget, run in the folder that holds this one:</p>"
        f"<pre>{_esc(command)}</pre></div></section>"
    )


def _places(result: Result) -> list[tuple[str, str]]:
    """Folder and budget: the run folder itself, then that of every point, each once."""
    folders = {"": "", **{p.folder.strip("."): limits_of(p.budget) for p in result.points}}
    return list(folders.items())


def _held(place: Path) -> list[str]:
    return [name for name in FILES if (place / name).is_file()]


def _files_table(where: str, budget: str, held: Sequence[str], digests: Mapping[str, tuple[str, str]]) -> str:
    """Per file what it is, and whether it is still the one that was delivered."""
    prefix = f"{where}/" if where else ""
    title = f"<p><b>{_esc(budget)}</b></p>" if budget else ""
    body = []
    for name in held:
        digest, changed = digests.get(prefix + name, ("", ""))
        state = (
            f"<b>not as delivered: it {_esc(changed)}</b>"
            if changed
            else f'<code title="{digest}">{digest[:16]}</code>'
        )
        cells = f"<td>{_esc(FILES[name])}</td><td>{state}</td>"
        body.append(f"<tr><th><code>{_esc(prefix + name)}</code></th>{cells}</tr>")
    return f'<div class="whole">{title}{_table(["file", "what it is", "SHA-256"], body)}<br></div>'


def _code(held: Sequence[str], prefix: str) -> Iterator[str]:
    """Snippets that load the files at hand, without sartor."""
    if "model.pt2" in held:
        yield f"import torch\n\nmodel = torch.export.load({prefix + 'model.pt2'!r}).module()\noutput = model(inputs)"
    if "architecture.json" in held:
        path = f"Path({prefix + 'architecture.json'!r})"
        yield f"import json\nfrom pathlib import Path\n\nchosen = json.loads({path}.read_text())"
    if "model.safetensors" in held:
        yield (
            "# the weights alone, for a network built from its own source with the chosen options\n"
            "from safetensors.torch import load_file\n\n"
            f"network.load_state_dict(load_file({prefix + 'model.safetensors'!r}))"
        )
    if "model.onnx" in held:
        yield (
            f"import onnxruntime\n\nsession = onnxruntime.InferenceSession({prefix + 'model.onnx'!r})\n"
            "outputs = session.run(None, {session.get_inputs()[0].name: inputs})  # numpy arrays, one per named input"
        )


def _environment(result: Result) -> str:
    listed = [(k, text(v)) for k, v in _flat(result.environment) if text(v)]
    body = [f'<tr><th>{_esc(k)}</th><td class="value">{_esc(v)}</td></tr>' for k, v in listed]
    return (
        '<section><h2>Environment</h2><p class="soft">A latency holds for this machine, runtime and number of threads; '
        f"the seed and the data make the rest repeatable.</p>{_table(['', ''], body, heads_shown=False)}</section>"
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} / ")
        else:
            yield f"{prefix}{key}", value


def _table(heads: Sequence[str], body: Sequence[str], kind: str = "", *, heads_shown: bool = True) -> str:
    top = f"<thead><tr>{''.join(f'<th>{_esc(h)}</th>' for h in heads)}</tr></thead>" if heads_shown else ""
    return f'<div class="scroll"><table class="{kind}">{top}<tbody>{"".join(body)}</tbody></table></div>'


def _row(head: str, cells: Sequence[str], kind: str = "") -> str:
    return f'<tr class="{kind}"><th>{_esc(head)}</th>{"".join(f"<td>{_esc(c)}</td>" for c in cells)}</tr>'


def _total(result: Result, key: str) -> int:
    return sum(getattr(stage, key) for stage in result.spent.stages)


def _esc(value: str) -> str:
    return html.escape(text(value) if "\n" not in value else value)

"""One self-contained HTML page of a run, built from `result.json` alone.

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

from sartor.core.errors import StateError
from sartor.report.plots import draw
from sartor.report.result import (
    Fitting,
    Measured,
    Network,
    Result,
    amount,
    digits,
    duration,
    human,
    limits_of,
    mapping,
    name_of,
    number,
    read,
    text,
)
from sartor.report.table import gain, gain_sentence, verdict_of

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

CHOSEN = ("widths", "removals", "operations")
"""Figures of what the networks are, choice by choice; one table says the same."""
ABOUT = {
    "trade_off": (
        "Large markers are trained networks measured on the target, with their confidence intervals: up and left is "
        "better, and the dashed line is the budget. Small dots are candidates as the search saw them, with estimated "
        "accuracy and modelled cost: compare them with each other, not with the large markers."
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
    "trade_off": ("Accuracy against cost", "neither candidates nor verified networks were recorded."),
    "widths": ("Width of every layer", "no widths were recorded."),
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
    """Write `report.html` from the `result.json` in `folder`, atomically.

    Raises:
        StateError: There is no `result.json`, or it is no JSON object.
    """
    page = folder / "report.html"
    part = folder / "report.html.part"
    part.write_text(render(_load(folder / "result.json"), folder), encoding="utf-8")
    part.replace(page)
    return page


def render(raw: Mapping[str, Any], folder: Path) -> str:
    """The page as text; `folder` is only asked which files of the winners it holds."""
    result = read(raw)
    figures = draw(result)
    sections = [
        _head(result),
        _summary(result),
        _plot("trade_off", figures),
        *_choices(result, figures),
        _plot("prediction", figures, _model(result)),
        _plot("progress", figures, _strategy(result)),
        _plot("narrowing", figures),
        _plot("stages", figures, _ledger(result)),
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


def _load(path: Path) -> Mapping[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StateError(f"a report needs {path}, which does not exist; run `sartor fit` to its end first") from None
    except ValueError as error:
        raise StateError(f"{path} is no JSON ({error}); run `sartor fit` again to rewrite it") from None
    if not isinstance(raw, dict):
        raise StateError(f"{path} must hold a JSON object, not a {type(raw).__name__}; run `sartor fit` again")
    return raw


def _head(result: Result) -> str:
    lines = [_verdict(f) for f in result.fittings] or ['<p class="missing">No winner was recorded.</p>']
    facts = "".join(f'<div class="fact"><b>{_esc(b)}</b><span>{_esc(s)}</span></div>' for b, s in _facts(result))
    grid = f'<div class="facts">{facts}</div>' if facts else ""
    return (
        f'<header>\n<h1>{_esc(result.title)}</h1>\n<p class="soft">sartor report</p>\n{"".join(lines)}{grid}</header>'
    )


def _verdict(fitting: Fitting) -> str:
    verdict = fitting.verdict or "UNKNOWN"
    sentence = verdict_of(fitting).removeprefix(f"{verdict}:").strip()
    kind = verdict.lower() if verdict in ("PASS", "FAIL", "UNSURE") else "unknown"
    return f'<div class="verdict"><span class="badge {kind}">{_esc(verdict)}</span><span>{_esc(sentence)}</span></div>'


def _facts(result: Result) -> Iterator[tuple[str, str]]:
    """Number and caption of the boxes below the headline; of the first budget."""
    fitting = result.fittings[0] if result.fittings else Fitting()
    where = f" at {limits_of(fitting)}" if len(result.fittings) > 1 else ""
    reference, winner, metric = result.reference, fitting.winner, result.metric
    if reference and winner:
        yield from _against_reference(reference, winner, metric, where)
    points = gain(fitting, result.test_examples)
    if points:
        none = points.low <= 0 <= points.high
        interval = f"interval {100 * points.low:+.1f} to {100 * points.high:+.1f} points"
        yield (
            "no gain" if none else f"{100 * points.value:+.1f} points",
            f"{'shown ' if none else ''}{_rival(fitting)}{where}; {interval}",
        )
    if result.seconds is not None:
        counts = [f"{_total(result, f'networks_{word}')} {word}" for word in ("trained", "measured")]
        yield duration(result.seconds), f"in all; networks: {', '.join(counts)}"


def _rival(fitting: Fitting) -> str:
    return "against the search's own network" if fitting.searched else "over scaling all layers alike"


def _against_reference(reference: Network, winner: Network, metric: str, where: str) -> Iterator[tuple[str, str]]:
    before, after = reference.cost(metric), winner.cost(metric)
    if before and after and after.value > 0:
        words = (
            "the speed of the reference" if metric.endswith("_ms") else f"fewer {name_of(metric)} than the reference"
        )
        yield f"{digits(before.value / after.value)}x", f"{words}{where}"
    same = reference.accuracy_on == winner.accuracy_on
    if reference.accuracy and winner.accuracy and same:
        change = 100 * (winner.accuracy.value - reference.accuracy.value)
        yield f"{change:+.1f} points", f"accuracy against the reference{where}"


def _summary(result: Result) -> str:
    if not result.networks:
        return _missing("Result", "no network was recorded.")
    splits = sorted({n.accuracy_on for n in result.networks if n.accuracy_on})
    on = f" ({', '.join(splits)})" if splits else ""
    heads = ["network", f"accuracy{on}", "latency", "MACs", "parameters", "peak memory"]
    body = [_network_row(result.reference)] if result.reference else []
    for fitting in result.fittings:
        label = limits_of(fitting) or "budget not recorded"
        body.append(f'<tr class="budget"><td colspan="6">{_esc(label)}</td></tr>')
        body += [_network_row(n) for n in fitting.networks]
    searched = " <em>searched</em> is the search's own network." if any(f.searched for f in result.fittings) else ""
    notes = "".join(f"<p>{_esc(note)}</p>" for note in _notes(result))
    return (
        '<section class="whole"><h2>Result</h2><p class="soft">Measured values with their confidence intervals. '
        "<em>uniform</em> is the reference made smaller evenly, without a search, to the same budget."
        f"{searched}</p>{_table(heads, body, 'numbers')}<br>{notes}</section>"
    )


def _network_row(network: Network) -> str:
    accuracy = network.accuracy and Measured(
        *(100 * v for v in (network.accuracy.value, network.accuracy.low, network.accuracy.high))
    )
    cells = [
        _bounded(accuracy, "%", 1),
        _bounded(network.latency_ms, "ms"),
        _esc(human(network.macs)),
        _esc(human(network.params)),
        _esc(human(network.memory_bytes, "B")),
    ]
    kind = ' class="winner"' if network.label == "winner" else ""
    return f"<tr{kind}><th>{_esc(network.label)}</th>{''.join(f'<td>{c}</td>' for c in cells)}</tr>"


def _bounded(value: Measured | None, unit: str, places: int | None = None) -> str:
    if value is None:
        return "-"
    numbers = [digits(v) if places is None else f"{v:.{places}f}" for v in (value.value, value.low, value.high)]
    interval = "" if value.certain else f" <small>({numbers[1]}-{numbers[2]})</small>"
    return f"{numbers[0]} {unit}{interval}"


def _notes(result: Result) -> Iterator[str]:
    for fitting in result.fittings:
        where = f"At {limits_of(fitting)}: " if len(result.fittings) > 1 else ""
        sentence = gain_sentence(fitting, result.test_examples)
        if sentence:
            yield _capital(f"{where}{sentence}.")
        rounds = len(fitting.tightened)
        if rounds:
            limits = [amount(result.metric, number(t.get("limit"))) for t in fitting.tightened]
            yield _capital(
                f"{where}the first choice was measured over the budget; the search then aimed at a tighter limit "
                f"{'once' if rounds == 1 else f'{rounds} times'} ({', '.join(limits)})."
            )


def _plot(name: str, figures: Mapping[str, go.Figure], more: str = "") -> str:
    figure = figures.get(name)
    if figure is None:
        return _missing(*ABSENT[name], more)
    plain = json.loads(figure.to_json())
    title = plain["layout"].pop("title")["text"]
    plain["layout"]["margin"]["t"] = 40
    wide = " wide" if name in (*CHOSEN, "narrowing") else ""
    return (
        f'<section><div class="whole"><h2>{_esc(title)}</h2><p class="soft">{_esc(ABOUT[name])}</p>'
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
        yield _plot(name, figures, _widths_table(result) if name == drawn[-1] else "")


def _widths_table(result: Result) -> str:
    networks = [n for n in result.networks if n.widths]
    layers = dict.fromkeys(layer for n in networks for layer in n.widths)
    if not layers:
        return ""
    many = len(result.fittings) > 1
    limits = {id(n): limits_of(f) for f in result.fittings for n in f.networks}
    heads = ["layer", *(f"{n.label}, {limits[id(n)]}" if many and id(n) in limits else n.label for n in networks)]
    body = [_row(layer, [text(n.widths.get(layer, "-")) for n in networks]) for layer in layers]
    return f"<details><summary>The same in numbers</summary>{_table(heads, body, 'numbers')}</details>"


def _model(result: Result) -> str:
    model = result.latency_model
    if not model:
        return ""
    known = [
        (label, number(model.get(key)))
        for key, label in (("nrmse", "NRMSE"), ("mape", "mean absolute percentage error"))
    ]
    errors = ", ".join(f"{label} {100 * v:.1f} %" for label, v in known if v is not None) or "not recorded"
    fitted, held = (number(model.get(k)) for k in ("training_networks", "heldout_networks"))
    kind = text(model.get("kind")) or "kind not recorded"
    words = f"The model in use ({kind}) was fitted to {human(fitted)} networks and tried on {human(held)} others; "
    words += f"its error there: {errors}."
    rivals = {k: number(v) for k, v in mapping(model.get("models")).items()}
    body = [_row(k, [f"{100 * v:.1f} %"]) for k, v in sorted(rivals.items(), key=lambda i: i[1] or 0) if v is not None]
    return f"<p>{_esc(words)}</p>" + (
        _table(["latency model", "NRMSE, held-out networks"], body, "numbers small") if body else ""
    )


def _strategy(result: Result) -> str:
    search = result.search
    if not search:
        return ""
    count = number(search.get("evaluations"))
    words = f"Strategy: {text(search.get('strategy')) or 'not recorded'}"
    words += f"; evaluations: {human(count)}." if count is not None else "."
    settings = [(k, text(v)) for k, v in _flat(mapping(search.get("settings")))]
    body = [f'<tr><th>{_esc(k)}</th><td class="value">{_esc(v)}</td></tr>' for k, v in settings]
    table = (
        f"<details><summary>Its settings</summary>{_table(['setting', 'value'], body, 'small')}</details>"
        if body
        else ""
    )
    return f"<p>{_esc(words)}</p>{table}"


def _ledger(result: Result) -> str:
    if not result.stages:
        return ""
    keys = ("networks_trained", "networks_measured")
    body = [
        _row(text(s.get("name")), [duration(number(s.get("seconds"))), *(human(number(s.get(k))) for k in keys)])
        for s in result.stages
    ]
    total = [duration(result.seconds), *(str(_total(result, k)) for k in keys)]
    body.append(_row("total", total, "total"))
    table = _table(["stage", "time", "networks trained", "networks measured"], body, "numbers")
    wall = f"<p>Wall time from start to end: {_esc(duration(result.wall_seconds))}.</p>" if result.wall_seconds else ""
    return f'<div class="whole">{table}</div><br>{wall}'


def _use(result: Result, folder: Path) -> str:
    many = len(result.fittings) > 1
    places = [(f, held) for f in _places(result) if (held := _held(folder / f.folder))]
    found = "".join(_files_table(f, held, many) for f, held in places)
    if places:
        first, held = places[0]
        code = "\n\n".join(_code(held, f"{first.folder}/" if first.folder else ""))
        found += f'<div class="whole"><p>To load it without sartor:</p><pre>{_esc(code)}</pre></div>'
    else:
        found = '<p class="missing">This folder holds no model files.</p>'
    command = f"sartor verify {shlex.quote(folder.resolve().name)}"
    return (
        f'<section><h2>Use and check the result</h2>{found}<div class="whole"><p>To measure the winner again, on this '
        "machine or another, and compare it with its budget, run in the folder that holds this one:</p>"
        f"<pre>{_esc(command)}</pre></div></section>"
    )


def _places(result: Result) -> Iterable[Fitting]:
    """The run folder itself, then that of every budget, each once."""
    return {f.folder: f for f in (Fitting(), *result.fittings)}.values()


def _held(place: Path) -> list[str]:
    return [name for name in FILES if (place / name).is_file()]


def _files_table(fitting: Fitting, held: Sequence[str], many: bool) -> str:
    prefix = f"{fitting.folder}/" if fitting.folder else ""
    title = f"<p><b>{_esc(limits_of(fitting))}</b></p>" if many and fitting.limits else ""
    body = [f"<tr><th><code>{_esc(prefix + name)}</code></th><td>{_esc(FILES[name])}</td></tr>" for name in held]
    return f'<div class="whole">{title}{_table(["file", "what it is"], body)}<br></div>'


def _code(held: Sequence[str], prefix: str) -> Iterator[str]:
    """Snippets that load the files at hand, without sartor."""
    if "model.pt2" in held:
        yield f"import torch\n\nmodel = torch.export.load({prefix + 'model.pt2'!r}).module()\nlogits = model(images)"
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
            "(logits,) = session.run(None, {session.get_inputs()[0].name: images})  # a float32 numpy array"
        )


def _environment(result: Result) -> str:
    listed = [(k, text(v)) for k, v in _flat(result.environment) if text(v)]
    if not listed:
        return _missing("Environment", "it was not recorded.")
    body = [f'<tr><th>{_esc(k)}</th><td class="value">{_esc(v)}</td></tr>' for k, v in listed]
    return (
        '<section><h2>Environment</h2><p class="soft">A latency holds for this machine, runtime and number of threads; '
        f"the seed and the data make the rest repeatable.</p>{_table(['', ''], body, heads_shown=False)}</section>"
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(mapping(value), f"{prefix}{key} / ")
        else:
            yield f"{prefix}{key}", value


def _table(heads: Sequence[str], body: Sequence[str], kind: str = "", *, heads_shown: bool = True) -> str:
    top = f"<thead><tr>{''.join(f'<th>{_esc(h)}</th>' for h in heads)}</tr></thead>" if heads_shown else ""
    return f'<div class="scroll"><table class="{kind}">{top}<tbody>{"".join(body)}</tbody></table></div>'


def _row(head: str, cells: Sequence[str], kind: str = "") -> str:
    return f'<tr class="{kind}"><th>{_esc(head)}</th>{"".join(f"<td>{_esc(c)}</td>" for c in cells)}</tr>'


def _total(result: Result, key: str) -> int:
    return int(sum(number(s.get(key)) or 0 for s in result.stages))


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _esc(value: str) -> str:
    return html.escape(text(value) if "\n" not in value else value)

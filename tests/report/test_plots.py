from __future__ import annotations

import pytest
from sartor.report.result import read

from report.fixture import LAYERS, outdone, synthetic
from sartor.report.front import pareto
from sartor.report.plots import (
    SHOWN,
    draw,
    figures,
    narrowing,
    operations,
    prediction,
    progress,
    removals,
    stages,
    trade_off,
    widths,
)

NAMES = ["trade_off", "widths", "prediction", "progress", "narrowing", "stages"]


@pytest.fixture(scope="module")
def raw():
    return synthetic()


def traces(figure):
    return {trace.name: trace for trace in figure.data}


def test_every_figure_is_drawn_titled_and_labelled(raw):
    drawn = figures(raw)
    assert list(drawn) == NAMES
    assert len({f.layout.title.text for f in drawn.values()}) == len(NAMES)
    for figure in drawn.values():
        assert figure.layout.title.text
        assert any(axis.title.text for axis in figure.select_xaxes())
        assert all(t.hovertemplate or t.hoverinfo for t in figure.data)


def test_trade_off_shows_what_was_measured_and_what_was_estimated(raw):
    figure = trade_off(read(raw))
    found = traces(figure)
    entries = raw["curve"]
    assert sorted(found["winner"].x) == sorted(e["winner"]["latency_ms"]["value"] for e in entries)
    assert list(found["reference"].y) == [raw["reference"]["accuracy"]]
    assert list(found["reference"].error_y.array) == pytest.approx(
        [raw["reference"]["accuracy_interval"]["high"] - 0.984]
    )
    assert sorted(s.x0 for s in figure.layout.shapes) == sorted(raw["budget"]["latency_ms"])
    good = [(t["latency_ms"], t["accuracy"]) for t in raw["search"]["trials"] if not t["error"]]
    assert len(found["candidates (estimates)"].x) == len(good)
    assert list(zip(found["best estimates"].x, found["best estimates"].y, strict=True)) == [
        good[i] for i in pareto(good)
    ]


def test_a_budget_of_macs_changes_the_axis():
    figure = trade_off(read(synthetic(metric="macs")))
    assert figure.layout.xaxis.title.text == "MACs"
    assert sorted(s.x0 for s in figure.layout.shapes) == [8.0e6, 12.5e6]


def test_estimates_far_from_the_verified_get_their_own_panel(raw):
    far = synthetic()
    for trial in far["search"]["trials"]:
        trial["accuracy"] = trial["accuracy"] and trial["accuracy"] / 4
    figure = trade_off(read(far))
    rows = {t.name: t.yaxis for t in figure.data}
    assert rows["winner"] == "y"
    assert rows["candidates (estimates)"] == "y2"
    assert [a.text for a in figure.layout.annotations] == ["budget 0.96 ms", "budget 0.7 ms"], "each is named once"
    assert {t.yaxis for t in trade_off(read(raw)).data} == {"y"}


def test_many_trials_are_thinned_but_the_best_are_kept():
    many = synthetic()
    many["search"]["trials"] = [{"accuracy": 0.5 + i * 1e-6, "latency_ms": 1.0 + i * 1e-5} for i in range(3 * SHOWN)]
    found = traces(trade_off(read(many)))
    assert len(found["candidates (estimates)"].x) <= SHOWN
    assert len(found["best estimates"].x) == 3 * SHOWN


def test_widths_compare_layer_by_layer(raw):
    found = traces(widths(read(raw)))
    assert list(found["reference"].x) == LAYERS
    assert list(found["winner @ 0.96 ms"].y) == list(raw["winner"]["widths"].values())
    assert found["winner @ 0.96 ms"].visible is True
    assert found["winner @ 0.7 ms"].visible == "legendonly"
    assert "winner" in traces(widths(read(synthetic(budgets=1))))


def test_operations_stand_on_the_line_of_their_option_side_by_side():
    options = ["skip", "k3e3", "<k>"]
    mixed = {
        "reference": {"widths": {"a": "k3e3", "b": "<k>", "stem": 16}},
        "winner": {"widths": {"a": "k3e3", "b": "skip", "stem": 8}},
        "search": {"choices": [{"name": n, "options": options} for n in "ab"] + [{"name": "stem", "options": [8, 16]}]},
    }
    figure = operations(read(mixed))
    found = traces(figure)
    assert list(found["reference"].y) == ["k3e3", "&lt;k&gt;"]
    assert list(found["winner"].y) == ["k3e3", "skip"]
    assert list(figure.layout.xaxis.ticktext) == ["a", "b"], "widths have a figure of their own"
    assert list(figure.layout.yaxis.categoryarray) == ["skip", "k3e3", "&lt;k&gt;"]
    assert found["reference"].x[0] < 0 < found["winner"].x[0] < 0.5
    assert list(traces(widths(read(mixed)))["winner"].y) == [8]
    assert operations(read(synthetic())) is None


def test_what_is_gone_has_a_figure_of_its_own():
    many = {
        "reference": {"widths": {"keep:a": 1, "keep:<b>": 1, "width": 16}},
        "winner": {"widths": {"keep:a": 1, "keep:<b>": 0, "width": 8}},
        "search": {
            "choices": [
                {"name": "keep:a", "options": [0, 1]},
                {"name": "keep:<b>", "options": [0, 1]},
                {"name": "width", "options": [8, 16]},
            ]
        },
    }
    rows = traces(removals(read(many)))
    assert list(rows["winner"].marker.symbol) == ["square", "x-thin-open"]
    assert list(rows["reference"].marker.symbol) == ["square", "square"]
    assert list(rows["winner"].customdata) == ["keep:a stays", "keep:&lt;b&gt; is gone"]
    assert list(traces(widths(read(many)))["winner"].x) == ["width"]
    assert removals(read({**many, "winner": many["reference"]})) is None, "nothing is gone"
    assert removals(read(synthetic())) is None


def test_of_many_blocks_only_those_that_differ_are_drawn():
    names, options = [f"b{i}" for i in range(50)], [f"o{i}" for i in range(60)]
    mixed = {
        "reference": {"widths": dict.fromkeys(names, "o0")},
        "winner": {"widths": {**dict.fromkeys(names, "o0"), "b7": "o9"}},
        "search": {"choices": [{"name": n, "options": options} for n in names]},
    }
    figure = operations(read(mixed))
    assert list(figure.layout.xaxis.ticktext) == ["b7"]
    assert list(figure.layout.yaxis.categoryarray) == ["o0", "o9"]
    assert operations(read({**mixed, "winner": mixed["reference"]})) is None


def test_the_searchs_own_network_is_drawn_where_it_is_not_the_winner():
    changed = outdone(synthetic())
    point = changed["curve"][0]
    marks = traces(trade_off(read(changed)))
    assert list(marks["searched"].y) == [point["searched"]["accuracy"]]
    assert point["winner"]["accuracy"] in marks["winner"].y
    assert list(traces(prediction(read(changed)))["searched"].x) == [point["searched"]["predicted_latency_ms"]]
    bars = traces(widths(read(changed)))
    assert list(bars["searched @ 0.96 ms"].y) == list(point["searched"]["widths"].values())
    assert "uniform @ 0.96 ms" not in bars, "the same bars as the winner's"
    assert {"uniform @ 0.7 ms", "winner @ 0.96 ms"} <= bars.keys()
    assert not any("searched" in name for name in traces(trade_off(read(synthetic()))))


def test_prediction_has_the_diagonal_and_error_bars(raw):
    found = traces(prediction(read(raw)))
    dots = found["held-out networks"]
    assert list(dots.x) == [h["predicted"] for h in raw["latency_model"]["heldout"]]
    assert min(dots.error_y.arrayminus) > 0
    assert list(found["perfect prediction"].x) == list(found["perfect prediction"].y)


def test_progress_puts_like_with_like(raw):
    history = [{"epoch": e, "loss": 1.0, "valid_loss": 1.1, "accuracy": 0.9, "temperature": 0.1} for e in (1, 2)]
    figure = progress(read({**raw, "search": {"history": history}}))
    assert {t.name: t.yaxis for t in figure.data} == {
        "loss": "y",
        "valid_loss": "y",
        "accuracy": "y2",
        "temperature": "y3",
    }
    assert figure.layout.xaxis3.title.text == "epoch"


def test_a_history_with_gaps_and_without_steps_is_counted():
    figure = progress(read({"search": {"history": [{"loss": 2.0}, {"accuracy": 0.5}, {"loss": 1.0}]}}))
    assert list(traces(figure)["loss"].x) == [1.0, 3.0]


def test_without_a_history_the_trials_show_the_progress():
    trials = [{"accuracy": a, "latency_ms": t} for a, t in ((0.5, 0.9), (0.9, 2.0), (0.4, 0.5), (0.7, 0.8))]
    raw = {"search": {"trials": trials}, "winner": {"accuracy": 0.7}, "budget": {"latency_ms": [1.0]}}
    best = traces(progress(read(raw)))["best within the budget"]
    assert list(best.y) == [0.5, 0.5, 0.5, 0.7], "0.9 misses the budget"


def test_narrowing_shows_first_and_last_and_every_choice(raw):
    figure = narrowing(read(raw))
    kept = raw["search"]["narrowing"]
    assert [a.text for a in figure.layout.annotations] == ["epoch 5", "epoch 15", "epoch 30", "epoch 40"]
    assert [list(row) for row in figure.data[-1].z] == kept[-1]["probabilities"]
    assert list(figure.data[0].y) == LAYERS


def test_choices_may_have_different_numbers_of_options():
    figure = narrowing(read({"search": {"narrowing": [{"epoch": 1, "probabilities": [[0.5, 0.5], [1.0]]}]}}))
    assert [list(row) for row in figure.data[0].z] == [[0.5, 0.5], [1.0, None]]


def test_stages_are_in_order(raw):
    bar = stages(read(raw)).data[0]
    assert list(bar.y) == [s["name"] for s in raw["ledger"]["stages"]]
    assert list(bar.x) == [s["seconds"] for s in raw["ledger"]["stages"]]


def test_names_are_no_markup(raw):
    layer = {"<b>x</b>": 3}
    figure = widths(read({"reference": {"widths": layer}, "winner": {"widths": layer}}))
    assert list(figure.data[0].x) == ["&lt;b&gt;x&lt;/b&gt;"]


@pytest.mark.parametrize("part", ["reference", "budget", "curve", "latency_model", "search", "ledger", "environment"])
@pytest.mark.parametrize("value", [None, {"a": "x"}])
def test_a_part_that_is_missing_or_odd_only_costs_its_own_figures(raw, part, value):
    lost = {"latency_model": {"prediction"}, "search": {"progress", "narrowing"}, "ledger": {"stages"}}
    assert set(draw(read({**raw, part: value}))) == set(NAMES) - lost.get(part, set())

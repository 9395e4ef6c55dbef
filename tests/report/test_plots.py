from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from report.fixture import LAYERS, mirrored, outdone, synthetic
from sartor.core.metrics import Metric
from sartor.core.records import Choice, Trial
from sartor.report.front import pareto
from sartor.report.plots import (
    SHOWN,
    draw,
    narrowing,
    operations,
    prediction,
    progress,
    removals,
    stages,
    trade_off,
    widths,
)
from sartor.run.result import Moment, Spent, Trace

NAMES = ["trade_off", "widths", "prediction", "progress", "narrowing", "stages"]
EMPTY = Trace()


@pytest.fixture(scope="module")
def run():
    return synthetic()


def traces(figure):
    return {trace.name: trace for trace in figure.data}


def chosen(choices, reference, winner):
    """A result of one point without uniform scaling, whose networks have these options."""
    result = synthetic(budgets=1)[0]
    point = replace(result.points[0], searched=replace(result.points[0].searched, options=winner), uniform=None)
    search = replace(result.search, choices=tuple(Choice(n, tuple(o)) for n, o in choices.items()))
    return replace(result, reference=replace(result.reference, options=reference), points=(point,), search=search)


def test_every_figure_is_drawn_titled_and_labelled(run):
    drawn = draw(*run)
    assert list(drawn) == NAMES
    assert len({f.layout.title.text for f in drawn.values()}) == len(NAMES)
    for figure in drawn.values():
        assert figure.layout.title.text
        assert any(axis.title.text for axis in figure.select_xaxes())
        assert all(t.hovertemplate or t.hoverinfo for t in figure.data)


def test_trade_off_shows_what_was_measured_and_what_was_estimated(run):
    result, trace = run
    figure = trade_off(*run)
    found = traces(figure)
    assert sorted(found["winner"].x) == sorted(p.winner.latency_ms.value for p in result.points)
    assert list(found["reference"].y) == [0.984]
    high = result.reference.scores["accuracy"].high
    assert list(found["reference"].error_y.array) == pytest.approx([high - 0.984])
    assert sorted(s.x0 for s in figure.layout.shapes) == sorted(p.budget["latency_ms"] for p in result.points)
    good = [(t.metrics["latency_ms"], t.metrics["accuracy"]) for t in trace.trials if t.ok]
    assert len(found["candidates (estimates)"].x) == len(good)
    best = list(zip(found["best estimates"].x, found["best estimates"].y, strict=True))
    assert best == [good[i] for i in pareto(good)]


def test_an_error_to_be_minimised_is_drawn_as_the_mirror(run):
    plain, mirror = traces(trade_off(*run)), traces(trade_off(*mirrored(*run)))
    for name in ("winner", "reference", "best estimates"):
        assert list(mirror[name].x) == list(plain[name].x)
        assert list(mirror[name].y) == [-y for y in plain[name].y]
    assert list(mirror["winner"].error_y.array) == pytest.approx(list(plain["winner"].error_y.arrayminus))


def test_an_axis_is_in_per_cent_only_for_shares(run):
    result, trace = run
    assert trade_off(result, trace).layout.yaxis.tickformat == ".1%"
    decibels = replace(result, metrics=(Metric("accuracy", "max", "dB"),))
    figure = trade_off(decibels, trace)
    assert figure.layout.yaxis.tickformat is None
    assert figure.layout.yaxis.title.text == "accuracy (dB)"
    assert not any("%}" in t.hovertemplate for t in figure.data if t.hovertemplate)


def test_a_budget_of_macs_changes_the_axis():
    figure = trade_off(*synthetic(cost="macs"))
    assert figure.layout.xaxis.title.text == "MACs"
    assert sorted(s.x0 for s in figure.layout.shapes) == [8.0e6, 12.5e6]


def test_estimates_far_from_the_verified_get_their_own_panel(run):
    result, trace = run
    far = tuple(replace(t, metrics={**t.metrics, "accuracy": t.metrics["accuracy"] / 4}) for t in trace.trials)
    figure = trade_off(result, replace(trace, trials=far))
    rows = {t.name: t.yaxis for t in figure.data}
    assert rows["winner"] == "y"
    assert rows["candidates (estimates)"] == "y2"
    assert [a.text for a in figure.layout.annotations] == ["budget 0.96 ms", "budget 0.7 ms"], "each is named once"
    assert {t.yaxis for t in trade_off(*run).data} == {"y"}


def test_many_trials_are_thinned_but_the_best_are_kept(run):
    metrics = [{"accuracy": 0.5 + i * 1e-6, "latency_ms": 1.0 + i * 1e-5} for i in range(3 * SHOWN)]
    many = Trace(tuple(Trial(i, (0,), 1.0, m) for i, m in enumerate(metrics)))
    found = traces(trade_off(run[0], many))
    assert len(found["candidates (estimates)"].x) <= SHOWN
    assert len(found["best estimates"].x) == 3 * SHOWN


def test_what_is_thinned_is_said_and_the_staircase_is_of_all(run):
    rng = np.random.default_rng(0)
    values = [{"accuracy": float(v), "latency_ms": float(c)} for v, c in rng.random((2 * SHOWN, 2))]
    many = Trace(tuple(Trial(i, (0,), 1.0, m) for i, m in enumerate(values)))
    figure, found = progress(run[0], many), traces(progress(run[0], many))
    limit = max(p.budget["latency_ms"] for p in run[0].points)
    inside = [(i, m["accuracy"]) for i, m in enumerate(values) if m["latency_ms"] <= limit]
    best = [(i, a) for k, (i, a) in enumerate(inside) if a > max((b for _, b in inside[:k]), default=-1.0)]
    line = found["best within the budget"]
    assert [*zip(line.x, line.y, strict=True)][: len(best)] == best
    assert line.x[-1] == 2 * SHOWN - 1
    assert len(found["candidates"].x) == SHOWN
    assert figure.layout.meta == f"Drawn: one in 2 of {2 * SHOWN:,} candidates; the line is of all."
    assert progress(run[0], Trace(many.trials[:SHOWN])).layout.meta is None


def test_many_records_are_thinned(run):
    logs = tuple({"step": i, "loss": float(i)} for i in range(3 * SHOWN))
    figure = progress(run[0], Trace((), logs))
    assert len(figure.data[0].x) == SHOWN
    assert figure.data[0].x[-1] == 3 * SHOWN - 1
    assert f"one in 3 of {3 * SHOWN:,} records" in figure.layout.meta


def test_widths_compare_layer_by_layer(run):
    found = traces(widths(run[0]))
    assert list(found["reference"].x) == LAYERS
    assert list(found["winner @ 0.96 ms"].y) == list(run[0].points[0].winner.options.values())
    assert found["winner @ 0.96 ms"].visible is True
    assert found["winner @ 0.7 ms"].visible == "legendonly"
    assert "winner" in traces(widths(synthetic(budgets=1)[0]))


def test_operations_stand_on_the_line_of_their_option_side_by_side(run):
    options = ["skip", "k3e3", "<k>"]
    mixed = chosen(
        {"a": options, "b": options, "stem": [8, 16]},
        {"a": "k3e3", "b": "<k>", "stem": 16},
        {"a": "k3e3", "b": "skip", "stem": 8},
    )
    figure = operations(mixed)
    found = traces(figure)
    assert list(found["reference"].y) == ["k3e3", "&lt;k&gt;"]
    assert list(found["winner"].y) == ["k3e3", "skip"]
    assert list(figure.layout.xaxis.ticktext) == ["a", "b"], "widths have a figure of their own"
    assert list(figure.layout.yaxis.categoryarray) == ["skip", "k3e3", "&lt;k&gt;"]
    assert found["reference"].x[0] < 0 < found["winner"].x[0] < 0.5
    assert list(traces(widths(mixed))["winner"].y) == [8]
    assert operations(run[0]) is None


def test_what_is_gone_has_a_figure_of_its_own(run):
    choices = {"keep:a": [0, 1], "keep:<b>": [0, 1], "width": [8, 16]}
    whole = {"keep:a": 1, "keep:<b>": 1, "width": 16}
    many = chosen(choices, whole, {"keep:a": 1, "keep:<b>": 0, "width": 8})
    rows = traces(removals(many))
    assert list(rows["winner"].marker.symbol) == ["square", "x-thin-open"]
    assert list(rows["reference"].marker.symbol) == ["square", "square"]
    assert list(rows["winner"].customdata) == ["keep:a stays", "keep:&lt;b&gt; is gone"]
    assert list(traces(widths(many))["winner"].x) == ["width"]
    assert removals(chosen(choices, whole, whole)) is None, "nothing is gone"
    assert removals(run[0]) is None


def test_of_many_blocks_only_those_that_differ_are_drawn():
    names, options = [f"b{i}" for i in range(50)], [f"o{i}" for i in range(60)]
    choices, whole = dict.fromkeys(names, options), dict.fromkeys(names, "o0")
    figure = operations(chosen(choices, whole, {**whole, "b7": "o9"}))
    assert list(figure.layout.xaxis.ticktext) == ["b7"]
    assert list(figure.layout.yaxis.categoryarray) == ["o0", "o9"]
    assert operations(chosen(choices, whole, whole)) is None


def test_the_searchs_own_network_is_drawn_where_it_is_not_the_winner(run):
    result, trace = run
    changed = outdone(result)
    point = changed.points[0]
    marks = traces(trade_off(changed, trace))
    assert list(marks["searched"].y) == [point.searched.scores["accuracy"].value]
    assert point.winner.scores["accuracy"].value in marks["winner"].y
    assert list(traces(prediction(changed))["searched"].x) == [point.searched.predicted_latency_ms]
    bars = traces(widths(changed))
    assert list(bars["searched @ 0.96 ms"].y) == list(point.searched.options.values())
    assert "uniform @ 0.96 ms" not in bars, "the same bars as the winner's"
    assert {"uniform @ 0.7 ms", "winner @ 0.96 ms"} <= bars.keys()
    assert not any("searched" in name for name in traces(trade_off(*run)))


def test_prediction_has_the_diagonal_and_error_bars(run):
    found = traces(prediction(run[0]))
    dots = found["held-out networks"]
    assert list(dots.x) == [h.predicted for h in run[0].latency_model.heldout]
    assert min(dots.error_y.arrayminus) > 0
    assert list(found["perfect prediction"].x) == list(found["perfect prediction"].y)
    assert prediction(replace(run[0], latency_model=None)) is None


def test_progress_puts_like_with_like(run):
    logs = tuple({"epoch": e, "loss": 1.0, "valid_loss": 1.1, "accuracy": 0.9, "temperature": 0.1} for e in (1, 2))
    figure = progress(run[0], Trace(logs=logs))
    assert {t.name: t.yaxis for t in figure.data} == {
        "loss": "y",
        "valid_loss": "y",
        "accuracy": "y2",
        "temperature": "y3",
    }
    assert figure.layout.xaxis3.title.text == "epoch"


def test_logs_with_gaps_and_without_steps_are_counted(run):
    figure = progress(run[0], Trace(logs=({"loss": 2.0}, {"accuracy": 0.5}, {"loss": 1.0})))
    assert list(traces(figure)["loss"].x) == [1.0, 3.0]


@pytest.mark.parametrize(("goal", "sign"), [("max", 1), ("min", -1)])
def test_without_logs_the_trials_show_the_progress(run, goal, sign):
    found = ((0.5, 0.9), (0.9, 2.0), (0.4, 0.5), (0.7, 0.8))
    trials = tuple(Trial(i, (0,), 1.0, {"accuracy": sign * a, "latency_ms": t}) for i, (a, t) in enumerate(found))
    result = replace(synthetic(budgets=1)[0], metrics=(Metric("accuracy", goal),))
    best = traces(progress(result, Trace(trials)))["best within the budget"]
    assert list(best.y) == [sign * y for y in (0.5, 0.5, 0.5, 0.7)], "0.9 misses the budget"


def test_narrowing_shows_first_and_last_and_every_choice(run):
    figure = narrowing(*run)
    assert [a.text for a in figure.layout.annotations] == ["epoch 5", "epoch 15", "epoch 30", "epoch 40"]
    assert [tuple(row) for row in figure.data[-1].z] == list(run[1].narrowing[-1].probabilities)
    assert list(figure.data[0].y) == LAYERS


def test_choices_may_have_different_numbers_of_options():
    two = chosen({"a": [1, 2], "b": [1]}, {"a": 2, "b": 1}, {"a": 1, "b": 1})
    figure = narrowing(two, Trace(narrowing=(Moment(1, ((0.5, 0.5), (1.0,))),)))
    assert [list(row) for row in figure.data[0].z] == [[0.5, 0.5], [1.0, None]]


def test_stages_are_in_order(run):
    bar = stages(run[0]).data[0]
    assert list(bar.y) == [s.name for s in run[0].spent.stages]
    assert list(bar.x) == [s.seconds for s in run[0].spent.stages]


def test_names_are_no_markup():
    layer = {"<b>x</b>": 3}
    figure = widths(chosen({"<b>x</b>": [3]}, layer, layer))
    assert list(figure.data[0].x) == ["&lt;b&gt;x&lt;/b&gt;"]


def test_what_is_missing_only_costs_its_own_figures(run):
    result, trace = run
    assert set(draw(replace(result, latency_model=None), trace)) == set(NAMES) - {"prediction"}
    assert set(draw(result, EMPTY)) == set(NAMES) - {"progress", "narrowing"}
    assert set(draw(replace(result, spent=Spent()), trace)) == set(NAMES) - {"stages"}


@pytest.mark.parametrize("value", [0.8, 0.0, 1e-5])
def test_a_value_that_stands_alone_is_shown_with_what_is_around_it(run, value):
    """Else plotly shows the unit's width around it, up to 150 per cent of a share."""
    result, _ = run
    one = Trace((Trial(0, (0, 0), 1.0, {result.metric.name: value, result.cost: 1.0}),))
    ((low, high),) = [axis.range for axis in draw(result, one)["progress"].select_yaxes()]
    assert low < value < high
    assert high - low <= max(0.25 * value, 0.25)

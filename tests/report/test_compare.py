from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from sartor.core.metrics import Metric
from sartor.core.records import Choice, Estimate
from sartor.jobs.compare.statistics import Frame, Outcome, contestants, figures
from sartor.report.compare import bands, notes, overview, page, sentences, write
from sartor.run.comparison import Answer, Comparison, Given, Other, Posed, Tried, Use, Yardstick
from sartor.run.result import Spent

ACCURACY = Metric("accuracy", "max", "share", "proportion")
ERROR = Metric("accuracy", "min", "share", "proportion")
"""Minus the accuracy, which is to be made small: everything that is said of it must be the same."""


def trials(qualities):
    return tuple(Tried(n, 9.0 * n, 2.0 * n, 0.1 * n, q, 1.0, True) for n, q in enumerate(qualities, 1))


def one(name, seed, quality, seen=(), *, trained=True, high=0.49, **changes):
    fixed = {
        "arch": (1,),
        "modelled": {"latency_ms": 0.47, "macs": 3e6},
        "latency_ms": Estimate(0.48, 0.47, high),
        "used": Use(len(seen), 90.0, 20.0),
        "examples": 200,
        "valid": 0.8,
    }
    answer = Answer(seed=seed, quality=quality, trials=trials(seen), **{**fixed, **changes})
    return Outcome(name, name, trained, answer)


FRAME = Frame(ACCURACY, {"latency_ms": 0.5}, {"latency_ms": 1.0})
OUTCOMES = [
    one("random_search", 0, 0.90, (0.5, None, 0.6)),
    one("random_search", 1, 0.91, (0.4, 0.7)),
    one("good<b>", 0, 0.95, (0.5, 0.8), high=0.52),
    one("good<b>", 1, 0.961, (0.6, 0.9)),
    one("net", 0, 0.93, (0.2,), trained=False, latency_ms=Estimate(0.6, 0.55, 0.65)),
    one("net", 1, None, (), trained=False, arch=None, modelled={}, latency_ms=None, valid=None, reason="nothing fits"),
]
FIGURES = ("gains", "front", "anytime", "volume")


def found(outcomes=OUTCOMES, frame=FRAME, tested=(0.97,), **changes):
    rows, yardstick, corner = contestants(outcomes, frame)
    comparison = Comparison(
        title="toys & co",
        metric=frame.metric,
        budget=frame.limits,
        seeds=tuple(sorted({o.answer.seed for o in outcomes})),
        problem=Posed("5f2c", (Choice("width", (8, 16)),), (frame.metric,), tuple(frame.limits), frame.limits),
        reference=Yardstick({"latency_ms": 1.0}, tested, figures(tested)),
        contestants=rows,
        yardstick=yardstick,
        corner=corner,
        given=Given("epochs", 90),
        left_out={"uniform_width": "Toy cannot be scaled"},
        environment={"torch": "2", "target": {}},
        spent=Spent(total_seconds=75.0),
    )
    return replace(comparison, **changes)


def by(metric, factor, outcomes=OUTCOMES):
    """The same comparison by another metric, which is `factor` times the accuracy."""

    def times(value):
        return None if value is None else factor * value

    def turned(outcome):
        answer = outcome.answer
        tried = tuple(replace(t, quality=times(t.quality)) for t in answer.trials)
        others = tuple(replace(o, quality=times(o.quality)) for o in answer.others)
        answer = replace(answer, quality=times(answer.quality), valid=times(answer.valid), trials=tried, others=others)
        return replace(outcome, answer=answer)

    return found([turned(o) for o in outcomes], replace(FRAME, metric=metric), (factor * 0.97,))


def shown(renderable, width=200):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def figure(text, name):
    data = re.search(rf'id="{name}-data">(.*?)</script>', text)
    assert data, name
    return json.loads(data[1])


def test_the_table_has_the_best_first_and_says_who_is_over():
    text = shown(overview(found()))
    assert [n for n, _ in found().ranked] == ["good<b>", "net", "random_search"]
    assert text.index("good<b>") < text.index("net ") < text.index("random_search")
    assert "toys & co, latency <= 0.5 ms: 90 epochs each, 2 seeds" in text
    assert "Accuracy (more is better) of each search's answer" in text
    assert "95.55 % ± 6.99" in text  # 12.706 times 0.55, one degree of freedom
    inside = {n: re.search(rf"{n}.* (\d of \d) ", text)[1] for n in ("good<b>", "net", "random_search")}
    assert inside == {"good<b>": "1 of 2", "net": "0 of 1", "random_search": "2 of 2"}
    assert "…" not in shown(overview(found()), 120)


def test_markup_of_names_is_only_text():
    rows = {"aows (stages=[bold])": found().contestants["net"], **found().contestants}
    text = shown(overview(found(title="toys [red]", contestants=rows)))
    assert "toys [red], latency" in text
    assert "aows (stages=[bold])" in text


def test_what_is_said():
    assert list(sentences(found())) == [
        "good<b>: gain: +5.05 points (+4.41 to +5.69)",
        "net: no gain can be claimed: +2.50 points with too few seeds for an interval",
    ]
    said = " ".join(notes(found()))
    assert "2 seeds" in said
    assert "0.50 points" in said  # one of 200 examples
    assert "Toy cannot be scaled" in said
    assert "net has no answer at seed 1: nothing fits" in said
    assert "One seed" in " ".join(notes(found([o for o in OUTCOMES if o.answer.seed == 0])))


def test_the_page_stands_alone():
    text = page(found())
    plain = text.partition("<script>")[0]
    assert "good&lt;b&gt;" in plain
    assert "<b>" not in plain
    assert "default-src 'none'" in plain
    assert "http" not in plain.replace("http-equiv", "")
    assert "1 min 15 s" in plain
    assert "The reference network reaches 97.00 % on average and takes 1.00 ms." in plain
    for name in FIGURES:
        assert figure(text, name)["data"], name


def test_the_page_states_the_reference_point():
    text = page(found())
    assert (
        "network&#x27;s latency (1.00 ms) down to none, and from the worst accuracy of any trial (40.00 %, validation)"
        " to the best (90.00 %)"
    ) in text


def test_the_front_is_of_measured_answers_and_of_trained_trials():
    data = figure(page(found()), "front")["data"]
    fronts = [d for d in data if d["name"] == "front"]
    assert [(d["x"], d["y"]) for d in fronts] == [([0.48], [0.961]), ([0.1, 0.2], [0.6, 0.9])]
    net = [d for d in data if d["name"] == "net"]
    assert [len(d["x"]) for d in net] == [1, 0]  # inherited weights are another scale


def test_the_front_has_the_answers_at_other_budgets():
    more = [replace(o, answer=replace(o.answer, others=(Other(0.3, 0.85),))) for o in OUTCOMES[:1]]
    data = figure(page(found([*more, *OUTCOMES[1:]])), "front")["data"]
    (front, _) = [d for d in data if d["name"] == "front"]
    assert (front["x"], front["y"]) == ([0.3, 0.48], [0.85, 0.961])


def test_the_gains_have_their_intervals():
    (data,) = figure(page(found()), "gains")["data"]
    assert data["y"] == ["good&lt;b&gt;", "net"]
    assert data["error_x"]["array"][0] > 0
    assert data["error_x"]["array"][1] == 0


def test_buttons_change_the_unit():
    anytime = figure(page(found()), "anytime")
    buttons = anytime["layout"]["updatemenus"][0]["buttons"]
    assert [b["label"] for b in buttons] == ["against epochs", "against trials", "against seconds"]
    for button in buttons:
        assert len(button["args"][0]["visible"]) == len(anytime["data"])
    visible = [d["visible"] for d in anytime["data"]]
    assert visible == buttons[0]["args"][0]["visible"]


def test_bands_step_together_from_where_all_have_a_value():
    xs, rows = bands([[(1, None), (2, 0.5), (4, 0.7)], [(1, 0.4), (3, 0.6)]])
    assert xs == [2, 3, 4]
    assert rows == [[0.5, 0.4], [0.5, 0.6], [0.7, 0.6]]
    assert bands([[(None, 1.0)]]) == ([], [])


@pytest.mark.parametrize("outcomes", [OUTCOMES[:1], OUTCOMES[4:], OUTCOMES[5:]], ids=["one", "no yardstick", "nothing"])
def test_little_is_shown_as_little(tmp_path, outcomes):
    write(found(outcomes), tmp_path / "new")
    assert (tmp_path / "new/compare.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert shown(overview(found(outcomes)))
    assert "Not shown" in (tmp_path / "new/compare.html").read_text()


def negative(values):
    return [None if v is None else pytest.approx(-v) for v in values]


def test_by_an_error_the_same_is_said_in_the_same_order():
    plain, turned = found(), by(ERROR, -1)
    assert [n for n, _ in turned.ranked] == [n for n, _ in plain.ranked]
    assert list(sentences(turned)) == list(sentences(plain))
    assert list(notes(turned)) == list(notes(plain))
    lines, mirror = (shown(overview(f)).splitlines() for f in (plain, turned))
    assert "Accuracy (less is better) of each" in " ".join(mirror)
    row, other = (next(line for line in ls if line.strip().startswith("good<b>")) for ls in (lines, mirror))
    assert re.findall(r"\d of \d|± \d+\.\d+", row) == re.findall(r"\d of \d|± \d+\.\d+", other)
    assert "-95.55 % ± 6.99" in other


def test_by_an_error_the_figures_are_mirrored():
    plain, turned = page(found()), page(by(ERROR, -1))
    assert figure(turned, "gains")["data"] == figure(plain, "gains")["data"]
    assert figure(turned, "volume") == figure(plain, "volume")
    for name in ("front", "anytime"):
        lines = {_key(d): d for d in figure(turned, name)["data"]}
        expected = figure(plain, name)["data"]
        assert len(lines) == len(expected)
        for line in expected:
            assert lines[_key(line, mirror=True)]["y"] == negative(line["y"]), name
    low, high = figure(plain, "anytime")["layout"]["yaxis"]["range"]
    assert figure(turned, "anytime")["layout"]["yaxis"]["range"] == negative([high, low])
    assert "Up and left is better" in plain
    assert "Down and left is better" in turned
    assert "from the worst accuracy of any trial (-40.00 %, validation) to the best (-90.00 %)" in turned


def _key(line, *, mirror=False):
    """Which line of a figure it is; the lower edge of a band, which is filled up to the upper one, mirrors that one."""
    edge = line.get("line", {}).get("width") == 0
    which = [line.get("name"), line.get("legendgroup"), line.get("visible"), line.get("xaxis")]
    return (*which, line["mode"], tuple(line["x"]), edge and ("fill" in line) != mirror)


def test_values_stand_with_the_unit_of_their_metric():
    turned = by(Metric("psnr", "max", "dB", "per_example"), 40)
    text = page(turned)
    assert next(sentences(turned)) == "good<b>: gain: +2.02 dB (+1.77 to +2.27)"
    assert "38.22 dB ± 2.8" in shown(overview(turned))
    assert "38.8 dB on average" in text
    assert "points" not in text.partition("<script>")[0]
    gains = figure(text, "gains")
    assert gains["data"][0]["x"][0] == pytest.approx(2.02)
    assert gains["layout"]["xaxis"]["title"]["text"].startswith("dB of psnr better than random search")
    assert figure(text, "front")["layout"]["yaxis"].get("tickformat") is None

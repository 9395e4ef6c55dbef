from __future__ import annotations

import io
import json
import re

import pytest
from rich.console import Console

from sartor.jobs.compare.statistics import Frame, Outcome, summary
from sartor.report.compare import bands, notes, overview, page, ranked, sentences, write


def trials(accuracies):
    return [
        {
            "trials": n,
            "epochs": 9.0 * n,
            "seconds": 2.0 * n,
            "cost": 0.1 * n,
            "accuracy": a,
            "fidelity": 1.0,
            "inside": True,
        }
        for n, a in enumerate(accuracies, 1)
    ]


def one(name, seed, accuracy, seen=(), *, trained=True, high=0.49, **changes):
    fixed = {
        "plugin": name,
        "arch": [1],
        "modelled": {"latency_ms": 0.47, "macs": 3e6},
        "latency": {"value": 0.48, "low": 0.47, "high": high},
        "spent": {"trials": len(seen), "epochs": 90.0, "seconds": 20.0},
        "examples": 200,
        "valid": 0.8,
    }
    return Outcome(
        strategy=name, seed=seed, accuracy=accuracy, trials=trials(seen), trained=trained, **{**fixed, **changes}
    )


FRAME = Frame("accuracy", {"latency_ms": 0.5}, {"latency_ms": 1.0})
OUTCOMES = [
    one("random_search", 0, 0.90, (0.5, None, 0.6)),
    one("random_search", 1, 0.91, (0.4, 0.7)),
    one("good<b>", 0, 0.95, (0.5, 0.8), high=0.52),
    one("good<b>", 1, 0.961, (0.6, 0.9)),
    one("net", 0, 0.93, (0.2,), trained=False, latency={"value": 0.6, "low": 0.55, "high": 0.65}),
    one("net", 1, None, (), trained=False, arch=None, modelled={}, latency=None, valid=None, reason="nothing fits"),
]


def found(outcomes=OUTCOMES, **changes):
    base = {
        "title": "toys & co",
        "allowance": {"unit": "epochs", "amount": 90},
        "seeds": sorted({o.seed for o in outcomes}),
        "reference": {"modelled": {"latency_ms": 1.0}, "mean": 0.97},
        "left_out": {"uniform_width": "Toy cannot be scaled"},
        "environment": {"torch": "2", "target": {}},
        "ledger": {"total_seconds": 75.0},
    }
    return {**base, **summary(outcomes, FRAME), **changes}


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
    assert [n for n, _ in ranked(found())] == ["good<b>", "net", "random_search"]
    assert text.index("good<b>") < text.index("net ") < text.index("random_search")
    assert "toys & co, latency <= 0.5 ms: 90 epochs each, 2 seeds" in text
    assert "95.55 % ± 6.99" in text  # 12.706 times 0.55, one degree of freedom
    inside = {n: re.search(rf"{n}.* (\d of \d) ", text)[1] for n in ("good<b>", "net", "random_search")}
    assert inside == {"good<b>": "1 of 2", "net": "0 of 1", "random_search": "2 of 2"}
    assert "…" not in shown(overview(found()), 120)


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
    assert "One seed" in " ".join(notes(found([o for o in OUTCOMES if o.seed == 0])))


def test_the_page_stands_alone():
    text = page(found())
    plain = text.partition("<script>")[0]
    assert "good&lt;b&gt;" in plain
    assert "<b>" not in plain
    assert "default-src 'none'" in plain
    assert "http" not in plain.replace("http-equiv", "")
    assert "1 min 15 s" in plain
    for name in ("gains", "front", "anytime", "volume"):
        assert figure(text, name)["data"], name


def test_the_page_states_the_reference_point():
    text = page(found())
    assert "network&#x27;s latency (1.00 ms) and the worst accuracy of any trial (40.00 %, validation)" in text


def test_the_front_is_of_measured_answers_and_of_trained_trials():
    data = figure(page(found()), "front")["data"]
    fronts = [d for d in data if d["name"] == "front"]
    assert [(d["x"], d["y"]) for d in fronts] == [([0.48], [0.961]), ([0.1, 0.2], [0.6, 0.9])]
    net = [d for d in data if d["name"] == "net"]
    assert [len(d["x"]) for d in net] == [1, 0]  # inherited weights are another scale


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

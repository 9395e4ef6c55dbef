from __future__ import annotations

import io
import math

import pytest
from rich.console import Console
from sartor.report.result import Fitting, Measured, Network, read
from scipy.stats import binomtest

from report.fixture import outdone, synthetic
from sartor.report.table import gain, gain_sentence, summary, summary_text, verdict_of, wilson


def fitting(winner, uniform, searched=None, **settings):
    given = {"winner": winner, "uniform": uniform, "searched": searched}
    networks = {n: Network(n, accuracy=a, accuracy_on="test") for n, a in given.items() if a}
    return Fitting(**networks, **settings)


def test_the_table_at_a_glance():
    lines = summary_text(synthetic(budgets=1), width=80).splitlines()
    assert lines[0] == "digits on resnet14"
    assert max(map(len, lines)) <= 80
    rows = {line.split()[0]: line for line in lines if line.strip()}
    assert "98.4 % (97.8-99.0)" in rows["reference"]
    assert "0.941 ms (0.931-0.952)" in rows["winner"]
    assert "14.7 M" in rows["uniform"]
    assert "PASS: 0.94 ms (0.93-0.95) <= 0.96 ms" in lines
    assert "gain over uniform scaling: +1.9 points (+0.8 to +3.0)" in lines[-1]


def test_several_budgets_have_a_group_each():
    text = summary_text(synthetic(budgets=3), width=80)
    assert [line.strip() for line in text.splitlines() if line.startswith("<=")] == []
    assert [line.strip() for line in text.splitlines() if line.strip().startswith("<=")] == [
        "<= 0.96 ms",
        "<= 0.7 ms",
        "<= 0.5 ms",
    ]
    assert text.count("winner") == 3
    assert text.count("PASS") == 3
    assert "…" not in text


@pytest.mark.parametrize(("verdict", "code"), [("PASS", "32"), ("FAIL", "31"), ("UNSURE", "33")])
def test_the_verdict_has_a_colour(verdict, code):
    raw = synthetic(budgets=1)
    raw["curve"][0].update(verdict=verdict, sentence=f"{verdict}: as measured")
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=100)
    console.print(summary(raw))
    assert f"\x1b[1;{code}m{verdict}: as measured" in console.file.getvalue()


def test_wilson_is_scipys():
    for hits, n in ((0, 10), (3, 10), (981, 1000), (1000, 1000)):
        theirs = binomtest(hits, n).proportion_ci(method="wilson")
        ours = wilson(hits / n, n)
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_gain_is_newcombes_published_example():
    # Newcombe 1998, table II, comparison (a): 56/70 against 48/80 gives 0.0524 to 0.3339.
    found = gain(fitting(Measured(0.8, 0.8, 0.8), wilson(0.6, 80)), 70)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_no_gain_when_the_interval_contains_zero():
    near = fitting(Measured(0.95, 0.94, 0.96), Measured(0.945, 0.935, 0.955))
    assert gain_sentence(near).startswith("no gain over uniform scaling: +0.5 points (-0.9 to +1.9)")
    far = fitting(Measured(0.95, 0.94, 0.96), Measured(0.90, 0.89, 0.91))
    assert gain_sentence(far).startswith("gain over uniform scaling: +5.0 points")
    worse = fitting(Measured(0.90, 0.89, 0.91), Measured(0.95, 0.94, 0.96))
    assert gain_sentence(worse).startswith("loss against uniform scaling: -5.0 points")


def test_a_loss_says_why_it_was_not_avoided():
    worse = (Measured(0.90, 0.89, 0.91), Measured(0.95, 0.94, 0.96))
    told = gain_sentence(fitting(*worse, reason="it is over the budget"))
    assert told.endswith("(sartor export FOLDER --network uniform writes that one), but it is over the budget")


def test_uniform_scaling_that_has_won_is_compared_with_the_search():
    good, poor = Measured(0.836, 0.83, 0.842), Measured(0.804, 0.798, 0.81)
    reason = "on the validation split it is better than the search's (84.00 against 81.00 %)"
    won = fitting(good, good, poor, reason=reason)
    assert gain_sentence(won) == (
        f"the winner is the uniformly scaled network: {reason}; 83.6 against 80.4 % on test: +3.2 points (+2.4 to +4.0)"
    )
    near = fitting(good, good, Measured(0.83, 0.82, 0.84), reason=reason)
    assert gain_sentence(near).endswith("+0.6 points (-0.6 to +1.8), the interval contains 0")
    unlucky = fitting(poor, poor, good, reason="the search's own is over the budget")
    assert gain_sentence(unlucky).endswith("(sartor export FOLDER --network searched writes the search's own)")
    untested = Fitting(winner=Network("winner"), uniform=Network("uniform"), searched=Network("searched"))
    assert gain_sentence(untested) == "the winner is the uniformly scaled network"


def test_the_searchs_own_network_has_a_row_where_it_is_not_the_winner():
    lines = summary_text(outdone(synthetic(budgets=1)), width=100).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["winner"] == rows["uniform"] != rows["searched"]
    assert rows["winner"][0] == "98.1"
    assert rows["searched"][0] == "96.2"
    assert "the winner is the uniformly scaled network: on the validation split" in " ".join(lines)
    assert "searched" not in summary_text(synthetic(budgets=1))


def test_no_gain_is_claimed_without_intervals_or_across_splits():
    exact = Measured(0.95, 0.95, 0.95)
    assert gain(fitting(exact, exact)) is None
    other = Fitting(winner=Network("winner", exact, "test"), uniform=Network("uniform", exact, "valid"))
    assert gain(other, 1000) is None
    assert gain_sentence(other, 1000) == ""


def test_uniform_over_the_budget_is_said():
    raw = synthetic(budgets=1)
    raw["curve"][0]["uniform"]["latency_ms"] = {"value": 1.1, "low": 1.05, "high": 1.2}
    assert "uniform is over the budget (1.10 ms)" in " ".join(summary_text(raw, width=200).split())


def test_a_missing_sentence_is_made_up_from_the_numbers():
    raw = synthetic(budgets=1)
    del raw["curve"][0]["sentence"]
    assert verdict_of(read(raw).fittings[0]) == "PASS: 0.941 ms <= 0.96 ms"


@pytest.mark.parametrize("raw", [{}, {"winner": {}}, {"reference": {"accuracy": math.nan}}, {"curve": [{}]}])
def test_little_is_still_a_table(raw):
    assert summary_text(raw).startswith("sartor run")


def test_markup_of_names_is_only_text():
    raw = synthetic(budgets=1)
    raw["title"] = "[red]<script>\x1b[2J"
    assert summary_text(raw).splitlines()[0] == "[red]<script> [2J"

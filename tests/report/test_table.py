from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from report.fixture import mirrored, outdone, synthetic
from sartor.core.metrics import Metric, Score
from sartor.core.records import Estimate
from sartor.report.table import gain, gain_sentence, summary, summary_text

ACCURACY = Metric("accuracy", "max", "share", "proportion")


def pointed(winner, rival, *, delivered="searched", **changes):
    """A point of the budget whose winner and rival have these scores."""
    point = synthetic(budgets=1)[0].points[0]
    own, scaled = (winner, rival) if delivered == "searched" else (rival, winner)
    return replace(
        point,
        delivered=delivered,
        searched=replace(point.searched, scores={"accuracy": Score(*own)}),
        uniform=replace(point.uniform, scores={"accuracy": Score(*scaled)}),
        **changes,
    )


def told(winner, rival, **changes):
    return gain_sentence(pointed(winner, rival, **changes), ACCURACY)


def test_the_table_at_a_glance():
    lines = summary_text(synthetic(budgets=1)[0], width=80).splitlines()
    assert lines[0] == "digits on resnet14"
    assert max(map(len, lines)) <= 80
    rows = {line.split()[0]: line for line in lines if line.strip()}
    assert "98.4 % (97.8-99.0)" in rows["reference"]
    assert "0.941 ms (0.931-0.952)" in rows["winner"]
    assert "14.7 M" in rows["uniform"]
    assert "PASS: 0.94 ms (0.93-0.95) <= 0.96 ms" in lines
    assert "gain over uniform scaling: +1.9 points (+0.8 to +3.0)" in lines[-1]


def test_the_same_run_by_an_error_says_the_same_of_the_gain():
    result, trace = synthetic(budgets=1)
    lines = summary_text(result).splitlines()
    mirror = summary_text(mirrored(result, trace)[0]).splitlines()
    assert mirror[-1] == lines[-1]
    rows = {line.split()[0]: line for line in mirror if line.strip()}
    assert "-98.4 % (-99.0 to -97.8)" in rows["reference"]


def test_several_budgets_have_a_group_each():
    text = summary_text(synthetic(budgets=3)[0], width=80)
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
    result = synthetic(budgets=1)[0]
    point = replace(result.points[0], verdict=verdict, sentence=f"{verdict}: as measured")
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=100)
    console.print(summary(replace(result, points=(point,))))
    assert f"\x1b[1;{code}m{verdict}: as measured" in console.file.getvalue()


def test_no_gain_when_the_interval_contains_zero():
    near = told((0.95, 0.94, 0.96), (0.945, 0.935, 0.955))
    assert near.startswith("no gain over uniform scaling: +0.5 points (-0.9 to +1.9)")
    assert told((0.95, 0.94, 0.96), (0.90, 0.89, 0.91)).startswith("gain over uniform scaling: +5.0 points")
    assert told((0.90, 0.89, 0.91), (0.95, 0.94, 0.96)).startswith("loss against uniform scaling: -5.0 points")


def test_a_loss_says_why_it_was_not_avoided():
    said = told((0.90, 0.89, 0.91), (0.95, 0.94, 0.96), reason="it is over the budget")
    assert said.endswith("(sartor export FOLDER --network uniform writes that one), but it is over the budget")


def test_uniform_scaling_that_has_won_is_compared_with_the_search():
    good, poor = (0.836, 0.83, 0.842), (0.804, 0.798, 0.81)
    reason = "on the validation split it is better than the search's (84.00 % against 81.00 %)"
    assert told(good, poor, delivered="uniform", reason=reason) == (
        f"the winner is the uniformly scaled network: {reason}; 83.6 % against 80.4 % on test: "
        "+3.2 points (+2.4 to +4.0)"
    )
    near = told(good, (0.83, 0.82, 0.84), delivered="uniform", reason=reason)
    assert near.endswith("+0.6 points (-0.6 to +1.8), the interval contains 0")
    unlucky = told(poor, good, delivered="uniform", reason="the search's own is over the budget")
    assert unlucky.endswith("(sartor export FOLDER --network searched writes the search's own)")


def test_the_searchs_own_network_has_a_row_where_it_is_not_the_winner():
    lines = summary_text(outdone(synthetic(budgets=1)[0]), width=100).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["winner"] == rows["uniform"] != rows["searched"]
    assert rows["winner"][0] == "98.1"
    assert rows["searched"][0] == "96.2"
    assert "the winner is the uniformly scaled network: on the validation split" in " ".join(lines)
    assert "searched" not in summary_text(synthetic(budgets=1)[0])


def test_no_gain_is_claimed_without_intervals_or_without_a_rival():
    point = pointed((0.95,), (0.90,))
    assert not gain(point, ACCURACY).bounded
    assert gain_sentence(point, ACCURACY) == "against uniform scaling: +5.0 points, no interval"
    alone = replace(point, uniform=None)
    assert gain(alone, ACCURACY) is None
    assert gain_sentence(alone, ACCURACY) == ""


def test_uniform_over_the_budget_is_said():
    result = synthetic(budgets=1)[0]
    point = result.points[0]
    slow = replace(point, uniform=replace(point.uniform, latency_ms=Estimate(1.1, 1.05, 1.2)))
    text = summary_text(replace(result, points=(slow,)), width=200)
    assert "uniform is over the budget (1.10 ms)" in " ".join(text.split())


def test_markup_of_names_is_only_text():
    result = replace(synthetic(budgets=1)[0], title="[red]<script>\x1b[2J")
    assert summary_text(result).splitlines()[0] == "[red]<script> [2J"

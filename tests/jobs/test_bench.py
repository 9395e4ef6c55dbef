from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from sartor.core.errors import BudgetError, ConfigError
from sartor.jobs.bench import Bench, Stand, bench
from tables import SETTINGS, values, written

STRATEGIES = {"random_search": {}, "few": {"name": "random_search", "trials": 5}}


@pytest.fixture
def table(tmp_path):
    return written(tmp_path)


def task(table, **changes):
    settings = {"budget": {"macs": 20e3}, "evaluations": 30, "runs": 6}
    return Bench(SETTINGS, str(table), STRATEGIES, **{**settings, **changes})


def test_curves_are_of_the_best_network_inside_the_budget_so_far(table):
    found = bench(task(table))
    stand, true = Stand(task(table)), values(table)
    inside = [
        true[":".join(str(c.options[a]) for c, a in zip(stand.space.choices, arch, strict=True))]
        for arch in stand._all()
        if stand.cost(arch)["macs"] <= 20e3
    ]
    assert 0 < len(inside) < 64
    assert found["optimum"] == max(inside)
    for curve in found["curves"].values():
        assert curve.shape == (6, 30)
        assert (np.diff(curve, axis=1) >= 0).all()
        assert set(curve.ravel()) <= set(inside)
    full, few = found["curves"]["random_search"], found["curves"]["few"]
    assert (few[:, 5:] == few[:, 4:5]).all()  # it stops after five
    assert full[:, -1].mean() > few[:, -1].mean()


def test_figures_are_those_of_the_curves(table):
    found = bench(task(table))
    finals = {name: curve[:, -1] for name, curve in found["curves"].items()}
    row = found["strategies"]["few"]
    assert row["mean"] == finals["few"].mean()
    assert row["std"] == pytest.approx(finals["few"].std(ddof=1))
    assert [row["q25"], row["median"], row["q75"]] == list(np.quantile(finals["few"], [0.25, 0.5, 0.75]))
    assert row["at"] == {"10": row["mean"], "20": row["mean"]}
    (test,) = found["tests"]
    assert test["p"] == mannwhitneyu(finals["random_search"], finals["few"]).pvalue
    json.dumps({k: v for k, v in found.items() if k != "curves"})


def test_workers_do_not_matter(table):
    one, two = bench(task(table, runs=3)), bench(task(table, runs=3), workers=2)
    assert all(np.array_equal(one["curves"][name], two["curves"][name]) for name in STRATEGIES)


def test_the_search_sees_the_signal_and_the_report_shows_the_truth(table):
    noisy = bench(task(table, signal="toy_valid_12", noise=2.0))
    assert noisy["signal"] == "toy_valid_12"
    assert noisy["reported"] == "toy_test_90"
    assert (np.diff(noisy["curves"]["random_search"], axis=1) < 0).any()  # what looks better may be worse
    assert set(noisy["curves"]["random_search"].ravel()) <= set(values(table).values())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"budget": {"macs": 10}}, BudgetError, "the smallest has macs"),
        ({"budget": {"mac": 10}}, ConfigError, "no budget on 'mac'"),
        ({"budget": {"macs": "50%"}}, ConfigError, "one number"),
        ({"runs": 0}, ConfigError, "runs must be at least 1"),
        ({"strategies": {}}, ConfigError, "no strategy"),
        ({"strategies": {"randon_search": {}}}, ConfigError, "random_search"),
        ({"strategies": {"random_search": {"trails": 3}}}, ConfigError, "trials"),
        ({"signal": "toy_test_9"}, ConfigError, "toy_test_90"),
    ],
)
def test_mistakes_are_named_before_anything_runs(table, changes, error, message):
    settings = {"space": SETTINGS, "table": str(table), "strategies": STRATEGIES, "budget": {"macs": 20e3}, **changes}
    with pytest.raises(error, match=message):
        bench(Bench(**settings), show=lambda *_: pytest.fail("something ran"))

from __future__ import annotations

import json
from math import prod

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from sartor import config
from sartor.core import plugins
from sartor.core.contracts import AskTell
from sartor.core.errors import BudgetError, CapabilityError, ConfigError
from sartor.core.records import Proposal
from sartor.costs.macs import Macs
from sartor.costs.params import Params
from sartor.jobs.bench import Bench, Stand, bench, over_time
from sartor.tabular import SETTINGS as KNOWN
from sartor.tabular import networks_of
from tables import SETTINGS, timed, values, written

STRATEGIES = {"random_search": {}, "few": {"name": "random_search", "trials": 5}}


@pytest.fixture
def table(tmp_path):
    return written(tmp_path)


def task(table, **changes):
    settings = {"strategies": STRATEGIES, "budget": {"macs": 20e3}, "evaluations": 30, "runs": 6}
    return Bench(SETTINGS, str(table), **{**settings, **changes})


def test_curves_are_of_the_best_network_inside_the_budget_so_far(table):
    found = bench(task(table))
    stand, true = Stand(task(table)), values(table)
    inside = [
        true[":".join(str(c.options[a]) for c, a in zip(stand.space.choices, arch, strict=True))]
        for arch in networks_of(stand.space)
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


def test_rewards_of_compression(table):
    """Signal and report alike: the formula with parameters of built networks, each with the teacher's own accuracy."""
    settings = task(table, objective="compression", signal="toy_valid_12", budget={})
    stand, true = Stand(settings), values(table)
    space = stand.space

    def size(arch):
        return sum(p.numel() for p in space.build(arch).parameters())

    def name(arch):
        return ":".join(str(c.options[a]) for c, a in zip(space.choices, arch, strict=True))

    def wanted(arch, column):
        gone = 1 - size(arch) / size(space.reference)
        return 100 * gone * (2 - gone) * column[name(arch)] / column[name(space.reference)]

    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    valid = {row[0]: float(row[1]) for row in rows}
    for arch in networks_of(space)[::7]:
        metrics = stand.evaluator(Proposal(arch), 0)
        assert metrics["compression"] == metrics["compression_12"] == pytest.approx(wanted(arch, valid))
        assert metrics["accuracy"] == valid[name(arch)]
        assert stand.evaluator.true(arch) == pytest.approx(wanted(arch, true))
    found = bench(settings)
    assert found["optimum"] == pytest.approx(max(wanted(a, true) for a in networks_of(space)))
    assert (found["objective"], found["reported"]) == ("compression", "compression by toy_test_90")
    rewards = np.array([wanted(a, true) for a in networks_of(space)])
    reached = np.unique(found["curves"]["random_search"])
    assert np.abs(reached[:, None] - rewards).min(1).max() < 1e-9
    with pytest.raises(ConfigError, match="objective is 'speed'; it must be one of accuracy, compression"):
        task(table, objective="speed")


def test_a_budget_on_what_the_table_lists(tmp_path):
    settings = task(timed(tmp_path), budget={"latency_ms": 0.2, "macs": 16e3})
    stand, true = Stand(settings), values(tmp_path / "toy.csv")
    rows = [line.split(",") for line in (tmp_path / "timed.csv").read_text().splitlines()[1:]]
    latency = {row[0]: float(row[-1]) for row in rows}
    key = {stand.table.rows[name]: name for name in true}
    names = {arch: key[stand.table.line(stand.space, arch)] for arch in networks_of(stand.space)}
    assert all(stand.cost(arch)["latency_ms"] == latency[name] for arch, name in names.items())
    inside = {true[n] for a, n in names.items() if latency[n] <= 0.2 and stand.cost(a)["macs"] <= 16e3}
    assert 0 < len(inside) < sum(ms <= 0.2 for ms in latency.values())
    found = bench(settings)
    assert found["optimum"] == max(inside)
    assert set(found["curves"]["random_search"].ravel()) <= inside


def simulated():
    """Strategies that only propose, and so can be simulated."""
    names = plugins.names("strategies")
    return [name for name in names if issubclass(plugins.load("strategies", name), AskTell)]


@pytest.mark.parametrize("name", simulated())
def test_every_strategy_that_only_proposes_takes_such_a_budget(tmp_path, name):
    strategies = {name: {"trials": 12} if name == "layernas" else {}}
    found = bench(task(timed(tmp_path), strategies=strategies, budget={"latency_ms": 0.3}, runs=1, evaluations=12))
    assert not np.isnan(found["strategies"][name]["mean"])


def test_one_that_trains_a_supernet_cannot_be_simulated(tmp_path):
    with pytest.raises(CapabilityError, match="needs Terms"):
        bench(task(timed(tmp_path), strategies={"aows": {}}, budget={"latency_ms": 0.3}))


def test_curves_against_the_seconds_of_training(tmp_path):
    found = bench(task(timed(tmp_path), signal="toy_valid_12"))
    times, best = found["timed"]["random_search"]
    assert best.shape == (6, len(times))
    assert (np.diff(times) > 0).all()
    assert times[0] <= 3 * 6  # each training takes 1 to 3 seconds
    assert 30 <= times[-1] <= 90
    assert np.array_equal(best[:, -1], found["curves"]["random_search"][:, -1]) or times[-1] < 90
    at = found["strategies"]["random_search"]["at_seconds"]
    assert set(at) <= {"1", "2", "5", "10", "20", "50"}
    assert at["20"] <= at["50"]
    assert "at_seconds" not in bench(task(written(tmp_path)))["strategies"]["random_search"]


def test_over_time_by_hand():
    curve = np.array([[np.nan, 1.0, 2.0, 2.0], [3.0, 3.0, 4.0, 5.0]])
    clock = np.array([[1.0, 2.0, 4.0, 4.0], [1.0, 3.0, 5.0, 6.0]])  # the first run stopped after three
    times, values_ = over_time(curve, clock)
    assert times[0] == pytest.approx(2)
    assert times[-1] == pytest.approx(5)  # the median of 4 and 6
    for t, column in zip(times, values_.T, strict=True):
        first = 2.0 if t >= 4 * (1 - 1e-9) else 1.0
        second = 4.0 if t >= 5 * (1 - 1e-9) else 3.0
        assert column.tolist() == [first, second]
    assert over_time(np.full((2, 3), np.nan), np.ones((2, 3)))[0].shape == (0,)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"budget": {"macs": 10}}, BudgetError, "the smallest has macs"),
        ({"budget": {"mac": 10}}, ConfigError, "no budget on 'mac'"),
        ({"budget": {"latency_ms": 1}}, ConfigError, "no budget on 'latency_ms' here; it may be one of macs, params"),
        ({"table": ""}, ConfigError, "no table comes with sartor for the space 'tiny'"),
        ({"table": "", "space": "tinny"}, ConfigError, "did you mean 'tiny'"),
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


def told_of_data():
    """Spaces that a table can list all networks of, and whose costs depend on the data set."""
    keys = {key for facts in KNOWN.values() for key in facts}
    for name in plugins.names("spaces"):
        kind = plugins.load("spaces", name)
        if keys & set(config.keywords(kind)) and name not in ("widths", "compression"):  # these need a network
            space = kind()
            if space.moves.members or prod(len(c.options) for c in space.choices) <= 2**16:
                yield name


TOLD = tuple(told_of_data())


def listed(folder, name, dataset, *, scale=None, settings=None):
    """A table of all networks, all equally good, with the space's costs times `scale`; None lists no costs."""
    space = plugins.load("spaces", name)(**(settings or {}))
    archs = networks_of(space)
    head = f"arch_str,{dataset}_test_90" + (f",flops_M_{dataset},params_M_{dataset}" if scale else "")
    lines = [head]
    costs = zip(*(cost(space)(archs).tolist() for cost in (Macs, Params)), strict=True)
    for arch, (macs, params) in zip(archs, costs, strict=True):
        lines.append(f"{space.key(arch)},50" + (f",{scale * macs / 1e6!r},{params / 1e6!r}" if scale else ""))
    path = folder / f"{name}.csv"
    path.write_text("\n".join(lines))
    return path, space


def stand_of(path, space, **budget):
    return Stand(Bench(space, str(path), {"random_search": {}}, budget=budget or {"macs": 1e12}, evaluations=1, runs=1))


def test_spaces_are_found_whose_costs_depend_on_the_data():
    assert {"nats_size", "nats_topology", "digits_widths", "tiny"} <= set(TOLD)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "nats_topology" else n for n in TOLD])
class TestCostsOnADataSet:
    def test_of_one_that_nobody_knows_are_those_of_the_table(self, tmp_path, name):
        path, space = listed(tmp_path, name, "plankton", scale=4)
        stand = stand_of(path, name, macs=1e12, params=1e12)
        found, own = stand.cost(space.reference), [space.reference]
        assert found["macs"] == pytest.approx(4 * float(Macs(space)(own)[0]))
        assert found["params"] == pytest.approx(float(Params(space)(own)[0]))
        with pytest.raises(ConfigError, match="nobody knows memory_bytes on the data set 'plankton'"):
            stand_of(path, name, memory_bytes=1e12)

    def test_are_refused_where_the_table_lists_none(self, tmp_path, name):
        path, space = listed(tmp_path, name, "plankton")
        with pytest.raises(ConfigError, match=r"nobody knows macs on the data set 'plankton'.*say classes and size"):
            stand_of(path, name)
        told = {"name": name, "classes": 7, "size": 32}
        other = plugins.load("spaces", name)(classes=7, size=32)
        assert stand_of(path, told).cost(space.reference)["macs"] == float(Macs(other)([space.reference])[0])

    def test_are_the_spaces_own_where_the_table_says_the_same(self, tmp_path, name):
        path, space = listed(tmp_path, name, "plankton", scale=1.001)
        stand = stand_of(path, name, macs=1e12, memory_bytes=1e12)
        assert stand.cost(space.reference)["macs"] == float(Macs(space)([space.reference])[0])

    def test_that_contradict_what_the_space_was_told_are_refused(self, tmp_path, name):
        path, _ = listed(tmp_path, name, "cifar100", scale=4, settings=dict(KNOWN["cifar100"]))
        with pytest.raises(ConfigError, match=r"contradicts .* on the data set 'cifar100': macs of"):
            stand_of(path, name)
        path, _ = listed(tmp_path, name, "plankton", scale=4)
        with pytest.raises(ConfigError, match="on the data set 'plankton'"):
            stand_of(path, {"name": name, "classes": 10, "size": 32})


def test_numbers_that_are_rounded_contradict_nothing(tmp_path):
    path, space = listed(tmp_path, "tiny", "cifar10", scale=1, settings=dict(KNOWN["cifar10"]))
    head, *rows = (line.split(",") for line in path.read_text().splitlines())
    rows = [[n, a, f"{float(m):.2f}", f"{float(p):.3f}"] for n, a, m, p in rows]
    path.write_text("\n".join(",".join(row) for row in (head, *rows)))
    assert stand_of(path, "tiny").cost(space.reference)["macs"] == float(Macs(space)([space.reference])[0])


def test_rewards_of_compression_are_by_the_tables_parameters(tmp_path):
    path, _ = listed(tmp_path, "tiny", "plankton")
    with pytest.raises(ConfigError, match="nobody knows params on the data set 'plankton'"):
        Stand(Bench("tiny", str(path), {"random_search": {}}, evaluations=1, runs=1, objective="compression"))

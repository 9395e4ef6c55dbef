from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from problems import small_problem
from sartor.core.contracts import CostModel, Problem, Space
from sartor.core.errors import BudgetError
from sartor.core.records import Choice, Constraint, Objective
from sartor.core.tables import Tables
from sartor.strategies.layernas.layers import Beam, Grid, Layers, largest
from sartor.surrogates.anova import Values


class Plain(Space):
    """Choices without a network; `canonical` gives the first choice's odd options up."""

    def __init__(self, *sizes, merge=False):
        self.choices, self.merge = tuple(Choice(f"c{i}", tuple(range(k))) for i, k in enumerate(sizes)), merge

    def build(self, arch):
        raise AssertionError("nothing here builds a network")

    def canonical(self, arch):
        return (arch[0] - arch[0] % 2, *arch[1:]) if self.merge else arch


class Asked(CostModel):
    """Tables that nobody may see."""

    def __init__(self, metric, tables):
        self.metric, self.inner, self.calls = metric, tables, 0

    def __call__(self, archs):
        self.calls += len(archs)
        return self.inner(archs)


class Told(Asked):
    def terms(self):
        return (self.inner,)


def tables(rng, sizes, widths):
    """Of widths (rising in every option), with pairs along the chain; else of any sign, without pairs."""
    if not widths:
        return Tables(tuple(torch.from_numpy(rng.normal(size=k)) for k in sizes))
    unary = [torch.from_numpy(np.sort(rng.random(k))) for k in sizes]
    pairs = {(i, i + 1): torch.outer(unary[i], unary[i + 1]) for i in range(len(sizes) - 1)}
    return Tables(tuple(unary), pairs, 0.3)


def problem_of(space, costs, limits):
    return Problem(space, (Objective("accuracy", "max"),), tuple(Constraint(m, u) for m, u in limits.items()), costs)


def every(sizes):
    return np.array(list(product(*map(range, sizes))))


def whole(index):
    return [tuple(a) for a in index.tolist()]


@pytest.mark.parametrize("kind", [Told, Asked])
@pytest.mark.parametrize("widths", [True, False])
def test_prefixes_fit_exactly_if_a_completion_does(kind, widths):
    rng = np.random.default_rng(0)
    sizes = (4, 3, 5, 2)
    for _ in range(5):
        cost, other = (kind(m, tables(rng, sizes, widths)) for m in ("one", "other"))
        costs = cost(whole(every(sizes))).numpy()
        limit = float(np.quantile(costs, 0.2))
        layers = Layers(problem_of(Plain(*sizes), {"one": cost, "other": other}, {}), {"one": limit}, 10)
        for depth in range(len(sizes) + 1):
            index = every(sizes[:depth]) if depth else np.zeros((1, 0), dtype=int)
            rest = costs.reshape(len(index), -1).min(1)
            assert (layers.fits(index) == (rest <= limit)).all()
            np.testing.assert_allclose(layers.place(index), (rest - costs.min()) / (limit - costs.min()), atol=1e-9)


def test_all_limits_count_and_buckets_are_of_the_one_used_most():
    rng, sizes = np.random.default_rng(1), (4, 4, 4)
    costs = {m: Told(m, tables(rng, sizes, True)) for m in ("one", "other")}
    index = every(sizes)
    values = {m: c(whole(index)).numpy() for m, c in costs.items()}
    limits = {m: float(np.quantile(v, 0.6)) for m, v in values.items()}
    problem = problem_of(Plain(*sizes), costs, {})
    inside = (values["one"] <= limits["one"]) & (values["other"] <= limits["other"])
    layers = Layers(problem, limits, 7)
    assert (layers.fits(index) == inside).all()
    shares = [(v - v.min()) / (limits[m] - v.min()) for m, v in values.items()]
    np.testing.assert_allclose(layers.place(index), np.maximum(*shares))
    np.testing.assert_allclose(Layers(problem, limits, 7, "other").place(index), shares[1])
    np.testing.assert_allclose(Layers(problem, {"one": limits["one"]}, 7, "other").place(index).max(), 1.0)
    assert layers.bucket(index[inside]).min() == 0
    assert layers.bucket(index[inside]).max() <= 7


def test_peaks_are_limits_too():
    problem = small_problem()
    layers = Layers(problem, problem.limits(), 10)
    index = every(layers.sizes)
    assert (layers.fits(index) == [problem.feasible(tuple(a)) for a in index.tolist()]).all()
    assert 0 < layers.fits(index).sum() < len(index)


def test_integer_costs_have_a_bucket_each():
    space = Plain(10, 10)
    cost = Told("price", Tables((torch.arange(10.0, dtype=torch.float64),) * 2))
    for limit in (3, 11, 40):
        layers = Layers(problem_of(space, {"price": cost}, {}), {"price": limit}, min(limit, 18))
        index = every((10, 10))
        index = index[layers.fits(index)]
        assert (layers.bucket(index) == index.sum(1)).all()


def test_without_limits_or_costs_there_is_no_difference():
    layers = Layers(problem_of(Plain(3, 3), None, {}), {}, 5)
    assert layers.fits(every((3, 3))).all()
    assert not layers.bucket(every((3, 3))).any()
    assert layers.trends().shape == (0, 6)


def test_what_cannot_be_met_is_told():
    cost = Told("price", Tables((torch.tensor([2.0, 3.0]),) * 2, {}, 1.0))
    with pytest.raises(BudgetError, match=r"price <= 4\.5, the smallest reached is 5"):
        Layers(problem_of(Plain(2, 2), {"price": cost}, {}), {"price": 4.5}, 5)


def test_a_cost_model_without_tables_is_asked_once_per_network():
    sizes = (4, 3, 4)
    cost = Asked("price", tables(np.random.default_rng(0), sizes, True))
    layers = Layers(problem_of(Plain(*sizes), {"price": cost}, {}), {"price": 2.5}, 5)
    for _ in range(3):
        layers.fits(every(sizes))
    assert cost.calls == 48


def test_the_largest_values_come_first():
    rng = np.random.default_rng(0)
    for size in (1, 5, 300, 40_000):
        for full in (rng.normal(size=size), rng.integers(0, 4, size).astype(float), np.full(size, -np.inf)):
            values = full.copy()
            values[rng.random(size) < 0.5] = -np.inf
            for count in (0, 1, 3, 64):
                expected = np.lexsort((np.arange(size), -values))[:count]
                assert (largest(values, min(count, size)) == expected).all()


def effects(rng, sizes, coupled=True):
    d, values = sum(sizes), Values.zero(sizes)
    pairs = rng.normal(size=(d, d)) * coupled
    return Values(0.5, rng.normal(size=d), pairs + pairs.T, values.offsets)


@pytest.mark.parametrize("merge", [True, False])
def test_the_grid_gives_the_best_networks_not_taken(merge):
    rng, sizes = np.random.default_rng(3), (4, 3, 5)
    cost = Told("price", tables(rng, sizes, True))
    layers = Layers(problem_of(Plain(*sizes, merge=merge), {"price": cost}, {}), {"price": 2.0}, 5)
    grid, values, index = Grid(layers), effects(rng, sizes), every(sizes)
    left = [tuple(a) for a in index[layers.fits(index)].tolist() if not merge or a[0] % 2 == 0]
    ranked = sorted(left, key=lambda a: -values.at(np.array([a]))[0])
    for arch in (ranked[0], ranked[2], (3, 2, 4)):
        grid.take(arch)
        grid.take(arch)
    ranked = [a for a in ranked if a not in (ranked[0], ranked[2])]
    assert [tuple(a) for a in grid.best(values, 6).tolist()] == ranked[:6]
    assert {tuple(a) for a in grid.rest().tolist()} == set(ranked)
    assert len(grid.best(values, 1000)) == len(ranked)


def test_the_beam_is_exact_for_sums_with_a_bucket_per_cost():
    rng, sizes = np.random.default_rng(4), (4, 5, 3, 4, 5)
    for seed in range(10):
        price = Tables(tuple(torch.from_numpy(rng.integers(0, 9, k)).double() for k in sizes))
        limit = 4 * len(sizes)
        problem = problem_of(Plain(*sizes), {"price": Told("price", price)}, {})
        layers = Layers(problem, {"price": limit}, limit)
        values, index = effects(rng, sizes, coupled=False), every(sizes)
        inside = index[layers.fits(index)]
        found = Beam(layers, 1).best(values, 1)
        assert values.at(found)[0] == pytest.approx(values.at(inside).max()), seed


@pytest.mark.parametrize("kind", [Told, Asked])
def test_the_beam_finds_nearly_the_best_inside_and_nothing_twice(kind):
    rng, sizes = np.random.default_rng(5), (4, 5, 3, 4)
    cost = kind("price", tables(rng, sizes, True))
    problem = problem_of(Plain(*sizes, merge=True), {"price": cost}, {})
    layers = Layers(problem, {"price": 2.2}, 20)
    beam, values, index = Beam(layers, 8), effects(rng, sizes), every(sizes)
    inside = index[layers.fits(index) & (index[:, 0] % 2 == 0)]
    best = np.sort(values.at(inside))[::-1]
    found = beam.best(values, 5)
    assert values.at(found)[0] == pytest.approx(best[0])
    assert layers.fits(found).all()
    assert (found[:, 0] % 2 == 0).all()
    beam.take(tuple(found[0].tolist()))
    again = beam.best(values, 1000)
    assert tuple(found[0].tolist()) not in {tuple(a) for a in again.tolist()}
    assert len(again) == len({tuple(a) for a in again.tolist()})
    assert len(beam.rest()) > 0


def test_small_spaces_are_enumerated_unless_costs_must_be_asked_for():
    sizes = (20, 20, 20)
    told = Told("price", tables(np.random.default_rng(0), sizes, True))
    asked = Asked("price", told.inner)
    for cost, dense in ((told, True), (asked, False)):
        assert Layers(problem_of(Plain(*sizes), {"price": cost}, {}), {"price": 9.0}, 5).dense() is dense
    assert not Layers(problem_of(Plain(*[20] * 4), None, {}), {}, 5).dense()

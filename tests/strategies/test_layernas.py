from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sartor.core.contracts import CostModel, Evaluator, Problem, Space
from sartor.core.errors import BudgetError, CapabilityError, ConfigError
from sartor.core.records import Choice, Constraint, Objective, Trial
from sartor.core.tables import Tables
from sartor.evaluators.synthetic import Synthetic
from sartor.run.journal import FileJournal, read_trials
from sartor.run.runner import run
from sartor.strategies.layernas import Layernas

from problems import small_problem  # isort: skip


class Plain(Space):
    """Choices without a network."""

    def __init__(self, *choices):
        self.choices = choices

    def build(self, arch):
        raise AssertionError("nothing here builds a network")


class Priced(CostModel):
    """Any function of the options."""

    def __init__(self, metric, price):
        self.metric, self.price = metric, price

    def __call__(self, archs):
        return torch.tensor([float(self.price(a)) for a in archs], dtype=torch.float64)


class Tabled(Priced):
    """A sum of one number per option."""

    def __init__(self, metric, *columns):
        self.inner = Tables(tuple(torch.tensor(c, dtype=torch.float64) for c in columns))
        super().__init__(metric, self.inner.cost)

    def terms(self):
        return (self.inner,)


def widths(count, options):
    return Plain(*(Choice(f"w{i}", tuple(range(options)), ordered=True) for i in range(count)))


def problem_of(space, limits, *costs, goal="max"):
    constraints = tuple(Constraint(c.metric, u) for c, u in zip(costs, limits, strict=False))
    return Problem(space, (Objective("accuracy", goal),), constraints, {c.metric: c for c in costs})


def searched(strategy, accuracy, failing=lambda arch: False, until=10**9):
    """All trials, which must differ."""
    trials = []
    while len(trials) < until and (proposals := strategy.ask()):
        news = [
            Trial(len(trials) + i, p.arch, 1.0, {}, "no")
            if failing(p.arch)
            else Trial(len(trials) + i, p.arch, 1.0, {"accuracy": float(accuracy(p.arch))})
            for i, p in enumerate(proposals)
        ]
        strategy.tell(news)
        trials += news
    assert len({t.arch for t in trials}) == len(trials)
    return trials


@st.composite
def knapsacks(draw):
    """Integer costs and gains per option, and a limit that some network meets."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    columns = [draw(st.lists(st.integers(0, 8), min_size=k, max_size=k)) for k in sizes]
    scale = draw(st.sampled_from([1.0, 0.1, 1e-4]))
    gains = [[scale * v for v in draw(st.lists(st.integers(-9, 9), min_size=k, max_size=k))] for k in sizes]
    limit = draw(st.integers(sum(map(min, columns)), sum(map(max, columns))))
    ordered = draw(st.booleans())
    return Plain(*(Choice(f"c{i}", tuple(range(k)), ordered) for i, k in enumerate(sizes))), columns, gains, limit


@pytest.mark.parametrize("surrogate", [True, False])
@settings(max_examples=60, deadline=None)
@given(knapsacks(), st.integers(0, 100))
def test_the_optimum_of_a_separable_objective_is_found(surrogate, knapsack, seed):
    """With at most layers x buckets x options trials, against brute force."""
    space, columns, gains, limit = knapsack

    def total(table, arch):
        return sum(row[k] for row, k in zip(table, arch, strict=True))

    buckets = max(1, sum(map(max, columns)) - sum(map(min, columns)))
    options = max(map(len, columns))
    bound = len(columns) * buckets * options
    problem = problem_of(space, [limit], Tabled("price", *columns))
    paper = {} if surrogate else {"surrogate": False, "parents": buckets + 1, "children": options}
    strategy = Layernas(problem, seed, trials=bound, buckets=buckets, **paper)
    searched(strategy, lambda a: total(gains, a))
    archs = product(*(range(len(c)) for c in columns))
    best = max(total(gains, a) for a in archs if total(columns, a) <= limit)
    found = strategy.solve({"price": limit})
    assert total(columns, found) <= limit
    assert total(gains, found) == pytest.approx(best)


def test_the_paper_ends_by_itself_when_nothing_is_unexplored():
    columns = [[0, 1, 2, 3]] * 3
    strategy = Layernas(
        problem_of(widths(3, 4), [5], Tabled("price", *columns)), 0, trials=10**6, surrogate=False, children=2
    )
    trials = searched(strategy, lambda a: -sum((x - 1.5) ** 2 for x in a))
    assert len(trials) < 4**3
    assert not strategy.within_limits
    assert any(sum(t.arch) > 5 for t in trials)


def test_every_network_is_inside_all_limits():
    rng = np.random.default_rng(0)
    space, seen = widths(4, 6), []
    first = Tabled("price", *np.sort(rng.random((4, 6)), 1).tolist())
    second = Priced("peak", lambda a: max(x * y for x, y in pairwise(a)))  # no sum of tables
    problem = problem_of(space, [1.8, 9.0], first, second)
    for surrogate in (True, False):
        strategy = Layernas(problem, 0, trials=60, surrogate=surrogate)
        trials = searched(strategy, lambda a: sum(np.sqrt(a)))
        seen.append(strategy.solve(problem.limits()))
        assert problem.feasible(seen[-1])
        if surrogate:
            assert all(problem.feasible(t.arch) for t in trials)
    inside = [a for a in product(range(6), repeat=4) if problem.feasible(a)]
    assert sum(np.sqrt(seen[0])) == max(sum(np.sqrt(a)) for a in inside)


def test_a_space_too_large_to_look_at_as_a_whole():
    """Ten to the twelfth networks: predictions go through buckets."""
    problem = problem_of(widths(12, 10), [60], Tabled("price", *[list(range(10))] * 12))
    gains = np.random.default_rng(0).random(12)[:, None] * np.sqrt(np.arange(10))
    strategy = Layernas(problem, 0, trials=80, buckets=60)
    trials = searched(strategy, lambda a: gains[range(12), a].sum())
    assert len(trials) == 80
    assert all(sum(t.arch) <= 60 for t in trials)
    best = np.zeros(61)  # by cost
    for row in gains:
        best = np.array([max(best[c - k] + row[k] for k in range(min(9, c) + 1)) for c in range(61)])
    found = [t.metrics["accuracy"] for t in trials]
    assert max(found[:5]) < 0.96 * best[60]
    assert max(found) > 0.99 * best[60]
    assert sum(strategy.solve({"price": 20})) <= 20


def test_where_a_cost_model_has_to_be_asked_it_is_asked_for_few_networks():
    asked = []

    def price(arch):
        asked.append(arch)
        return sum(arch) + arch[0] * arch[1] * arch[2]  # no sum of pairs

    space = widths(6, 8)
    problem = problem_of(space, [24], Priced("price", price))
    trials = searched(Layernas(problem, 0, trials=30, buckets=10), sum)
    assert all(problem.feasible(t.arch) for t in trials)
    assert max(sum(t.arch) for t in trials) >= 23
    assert len(set(asked)) < 0.2 * 8**6


def test_failed_networks_are_passed_over():
    problem = problem_of(widths(3, 6), [9], Tabled("price", *[list(range(6))] * 3))
    for surrogate in (True, False):
        strategy = Layernas(problem, 0, trials=60, surrogate=surrogate)
        trials = searched(strategy, sum, failing=lambda a: a[0] > 2)
        assert any(not t.ok for t in trials)
        assert sum(strategy.solve({"price": 9})) == 9
        assert strategy.solve({"price": 9})[0] <= 2
    never = Layernas(problem, 0, trials=20)
    assert len(searched(never, sum, failing=lambda a: True)) == 20
    assert problem.feasible(never.solve({"price": 9}))
    not_a_number = Layernas(problem, 0, trials=20)
    searched(not_a_number, lambda a: float("nan") if a[0] > 2 else sum(a))
    assert not_a_number.solve({"price": 9})[0] <= 2


def test_it_ends_when_all_networks_are_tried():
    for settings_ in ({}, {"first": 50}):
        strategy = Layernas(problem_of(widths(2, 3), []), 0, trials=100, **settings_)
        assert len(searched(strategy, sum)) == 9
        assert strategy.ask() == []


def test_an_error_to_minimise_is_searched_as_an_accuracy():
    found = []
    for goal, sign in (("max", 1), ("min", -1)):
        problem = problem_of(widths(3, 6), [9], Tabled("price", *[list(range(6))] * 3), goal=goal)
        trials = searched(Layernas(problem, 0, trials=30), lambda a, s=sign: s * (sum(a) + a[0] * a[1]))
        found.append([t.arch for t in trials])
    assert found[0] == found[1]


def test_known_noise_is_averaged_out():
    """A lucky trial is the answer only if evaluations are taken to be exact."""
    problem = problem_of(widths(3, 6), [15], Tabled("price", *[list(range(6))] * 3))
    every, truth = list(product(range(6), repeat=3)), {0.0: 0, 1.0: 0}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        archs = [tuple(a) for a in rng.permutation(every)[:60].tolist()]
        trials = [Trial(i, a, 1.0, {"accuracy": sum(a) / 3 + float(rng.normal())}) for i, a in enumerate(archs)]
        for noise in truth:
            strategy = Layernas(problem, 0, trials=60, noise=noise)
            strategy.tell(trials)
            truth[noise] += sum(strategy.solve({}))
            if not noise:
                assert strategy.solve({}) == max(trials, key=lambda t: t.metrics["accuracy"]).arch
    assert truth[1.0] > truth[0.0] + 10


def test_other_budgets_are_answered_and_no_more_is_trained():
    problem = problem_of(widths(3, 8), [12], Tabled("price", *[list(range(8))] * 3))
    strategy = Layernas(problem, 0, trials=5)
    trials = searched(strategy, lambda a: sum(np.sqrt(a)))
    known = {t.arch: t.metrics["accuracy"] for t in trials}
    least = min(map(sum, known))
    assert least > 2
    for limit in (12, least + 1):
        inside = {a: v for a, v in known.items() if sum(a) <= limit}
        assert strategy.solve({"price": limit}) == max(inside, key=inside.get)
    below = strategy.solve({"price": least - 1})  # predicted
    assert sum(below) < least
    with pytest.raises(BudgetError, match="smallest"):
        strategy.solve({"price": -1})


def test_predictions_beat_the_papers_sweeps_and_random_networks(tmp_path):
    problem = small_problem()
    judge = Synthetic(problem)
    best = {}
    for name, surrogate in (("predicted", True), ("paper", False)):
        folder = tmp_path / name
        run(Layernas(problem, 1, trials=12, surrogate=surrogate), problem, judge, folder=folder, seed=0)
        trials = read_trials(FileJournal(folder / "journal.jsonl"))
        best[name] = max((t.metrics["accuracy"] for t in trials if problem.feasible(t.arch)), default=0.0)
    archs = [a for a in product(*(range(len(c.options)) for c in problem.space.choices)) if problem.feasible(a)]
    optimum = max(judge(Trial(0, a, 1.0, {}), 0)["accuracy"] for a in archs)
    assert best["predicted"] == optimum
    assert best["paper"] <= optimum


class Fewest(Evaluator):
    def __call__(self, proposal, seed):
        return {"accuracy": 1.0}


def test_nothing_to_tell_networks_apart_is_no_error(tmp_path):
    problem = small_problem()
    assert run(Layernas(problem, 0, trials=20), problem, Fewest(), folder=tmp_path, seed=0)


def test_what_is_wrong_is_told():
    problem = problem_of(widths(2, 3), [1], Tabled("price", [1, 2, 3], [1, 2, 3]))
    with pytest.raises(BudgetError, match=r"price <= 1, the smallest reached is 2"):
        Layernas(problem, 0)
    problem = small_problem()
    for wrong in ({"trials": 0}, {"buckets": 0}, {"parents": 0}, {"children": 0}, {"first": 0}):
        with pytest.raises(ConfigError, match="at least 1"):
            Layernas(problem, 0, **wrong)
    with pytest.raises(ConfigError, match="negative"):
        Layernas(problem, 0, noise=-1.0)
    with pytest.raises(CapabilityError, match="no cost model for 'seconds'"):
        Layernas(problem, 0, metric="seconds")


OVERFLOWING = [
    (
        [[3, 0, 0, 0, 0], [7, 0, 3, 0, 2], [0, 0, 3, 6, 2], [0, 0, 7, 0]],
        [[0, 1, 2, 4, 1], [0, 0, 0, 1, 0], [0, -2, -1, -2, -1], [-7, 0, -3, 5]],
    ),
    (
        [[3, 0, 0, 0, 0], [1, 0, 3, 0, 6], [0, 0, 3, 6, 2], [0, 0, 7, 0]],
        [[0, 1, 2, 4, 1], [0, 0, 0, 1, 0], [0, -2, -1, -2, -1], [-1, 0, -3, 5]],
    ),
    (
        [[2, 0, 3, 7, 0], [3, 2, 6, 0, 2], [6, 6, 7, 2, 1], [7, 2, 0]],
        [[9, -2, 9, -4, -2], [6, 1, 1, 0, 5], [-6, 7, 6, -1, -7], [0, -4, 5]],
    ),
]


@pytest.mark.parametrize(("columns", "gains"), OVERFLOWING)
def test_the_surrogate_does_not_overflow(columns, gains):
    """What Hypothesis found when the inverse was kept: hundreds of trials whose values a sum explains exactly."""

    def total(table, arch):
        return sum(row[k] for row, k in zip(table, arch, strict=True))

    buckets = sum(map(max, columns)) - sum(map(min, columns))
    problem = problem_of(
        Plain(*(Choice(f"c{i}", tuple(range(len(c))), True) for i, c in enumerate(columns))),
        [22],
        Tabled("price", *columns),
    )
    strategy = Layernas(problem, 78, trials=len(columns) * buckets * 5, buckets=buckets)
    searched(strategy, lambda a: total(gains, a))
    archs = product(*(range(len(c)) for c in columns))
    best = max(total(gains, a) for a in archs if total(columns, a) <= 22)
    assert total(gains, strategy.solve({"price": 22})) == best


class Notebook:
    """A lab that keeps what it is told."""

    def __init__(self, accuracy):
        self.accuracy, self.logged, self.trials = accuracy, [], []

    def evaluate(self, proposals):
        made = [
            Trial(len(self.trials) + i, p.arch, 1.0, {"accuracy": float(self.accuracy(p.arch))})
            for i, p in enumerate(proposals)
        ]
        self.trials += made
        return made

    def log(self, **scalars):
        self.logged.append(scalars)


def test_a_surrogate_that_fails_leaves_random_networks_and_says_so():
    """Its kernels are spoilt: no nugget helps."""
    problem = problem_of(widths(3, 5), [8], Tabled("price", *[[0, 1, 2, 3, 4]] * 3))
    strategy, lab = Layernas(problem, 0, trials=30, noise=0.1), Notebook(sum)
    for kernel in strategy._model.kernels:
        kernel.single[:] = np.nan
    while strategy.step(lab):
        pass
    archs = [t.arch for t in lab.trials]
    assert len(archs) == len(set(archs)) == 30
    assert all(sum(a) <= 8 for a in archs)
    assert lab.logged[-1] == {"surrogate_failed": 1.0}
    assert sum(strategy.solve({"price": 8})) == max(map(sum, archs))


def test_a_surrogate_that_works_says_nothing():
    problem = problem_of(widths(3, 5), [8], Tabled("price", *[[0, 1, 2, 3, 4]] * 3))
    strategy, lab = Layernas(problem, 0, trials=30), Notebook(sum)
    while strategy.step(lab):
        pass
    assert not lab.logged


def test_options_that_tables_forbid_are_no_nuisance():
    """Their cost is infinite, also at the middle option, which trends start from."""
    column = [0, 1, np.inf, 3, 4]
    problem = problem_of(widths(3, 5), [8], Tabled("price", *[column] * 3))
    strategy = Layernas(problem, 0, trials=25)
    trials = searched(strategy, sum)
    assert all(2 not in t.arch for t in trials)
    assert sum(strategy.solve({"price": 8})) == 8

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from sartor.core.contracts import CostModel, Evaluator, Problem, Space
from sartor.core.errors import BudgetError, CapabilityError, ConfigError
from sartor.core.records import Choice, Constraint, Objective, Trial
from sartor.evaluators.synthetic import Synthetic
from sartor.run.journal import FileJournal, read_trials
from sartor.run.runner import restore, run
from sartor.solvers.budgets import levels, within
from sartor.strategies.netadapt import Netadapt

from problems import small_problem  # isort: skip


class Plain(Space):
    """Choices without a network."""

    def __init__(self, *choices):
        self.choices = choices

    def build(self, arch):
        raise AssertionError("a walk builds no network")


class Priced(CostModel):
    metric = "weights"

    def __init__(self, space, price):
        self.space, self.price, self.calls = space, price, 0

    def __call__(self, archs):
        self.calls += 1
        options = [[c.options[a] for c, a in zip(self.space.choices, arch, strict=True)] for arch in archs]
        return torch.tensor([self.price(*o) for o in options], dtype=torch.float64)


class Judge(Evaluator):
    def __init__(self, accuracy):
        self.accuracy = accuracy

    def __call__(self, proposal, seed):
        return {"accuracy": self.accuracy(proposal.arch)}


def problem_of(space, price, upper, *lower, goal="max"):
    return Problem(
        space,
        (Objective("accuracy", goal),),
        (Constraint("weights", upper, lower),),
        {"weights": Priced(space, price)},
    )


def walked(problem, folder, accuracy, **settings):
    strategy = Netadapt(problem, 0, **settings)
    assert run(strategy, problem, Judge(accuracy), folder=folder, seed=0)
    return strategy, read_trials(FileJournal(folder / "journal.jsonl"))


GOLDEN = Plain(*(Choice(f"layer{i}", tuple(range(1, n + 1)), ordered=True) for i, n in enumerate((16, 32, 64))))
TABLE = {(0,): 1, (1,): 5, (2,): 80, (0, 2): 85, (1, 2): 10, (0, 1, 2): 90}


def golden_weights(a, b, c):
    """Four 3x3 convolutions without bias, 3-a-b-c-10."""
    return 9 * (3 * a + a * b + b * c + 10 * c)


def golden_accuracy(arch):
    return TABLE.get(tuple(i for i, a in enumerate(arch) if a != GOLDEN.reference[i]), 95)


def test_the_golden_trace(tmp_path):
    """The example that NetAdapt's authors test their code with: 3-16-32-64-10."""
    problem = problem_of(GOLDEN, golden_weights, 26_500)
    strategy, trials = walked(problem, tmp_path, golden_accuracy, step=0.025, decay=1.0)
    found = [(*(a + 1 for a in t.arch), 10, int(t.metrics["weights"]), t.metrics["accuracy"]) for t in strategy.trail]
    assert found == [
        (16, 32, 64, 10, 29_232, 95),
        (16, 32, 62, 10, 28_476, 80),
        (13, 32, 62, 10, 27_531, 85),
        (13, 30, 62, 10, 26_181, 90),
    ]
    assert len(trials) == 1 + 3 * 3
    accepted = {t.index for t in strategy.trail}
    assert strategy.parents() == sorted(accepted)
    assert [t.parent for t in trials] == [None] + [p for p in strategy.parents()[:-1] for _ in range(3)]


def test_the_score_is_the_papers_and_answers_further_budgets_after_a_restart(tmp_path):
    problem = problem_of(GOLDEN, golden_weights, 28_600)
    strategy, _ = walked(problem, tmp_path, golden_accuracy, decay=1.0)
    wanted = [(95 - acc + 1e-6) / (saved + 1e-5) for acc, saved in ((1, 945), (5, 720), (80, 756))]
    assert [strategy.scores[i] for i in range(3)] == wanted
    # Below the end of the walk the last choice goes down alone, as it lost least per weight.
    weights = golden_weights(16, 32, 40)
    again = Netadapt(problem, 0)
    assert restore(again, tmp_path)
    assert strategy.solve({"weights": weights}) == again.solve({"weights": weights}) == (15, 31, 39)


def test_an_error_to_minimise_walks_as_an_accuracy_does(tmp_path):
    problem = problem_of(GOLDEN, golden_weights, 26_500, goal="min")
    strategy, _ = walked(problem, tmp_path, lambda a: -golden_accuracy(a), decay=1.0)
    assert strategy.trail[-1].arch == (12, 29, 61)


def test_the_reduction_decays(tmp_path):
    """One choice of a thousand equal options: every step is the reduction asked for, rounded up."""
    space = Plain(Choice("n", tuple(range(1, 1001)), ordered=True))
    strategy, trials = walked(problem_of(space, float, 800), tmp_path, sum, step=0.05, decay=0.9)
    costs = [t.metrics["weights"] for t in trials]
    # 50, 45, 40.5, 36.45, 32.805: the last one would end at 795 and stops at the limit
    assert costs == [1000, 950, 905, 864, 827, 800]
    assert len(strategy.trail) == 6


def test_the_walk_lands_on_every_level_and_answers_them(tmp_path):
    space = Plain(Choice("n", tuple(range(1, 1001)), ordered=True))
    problem = problem_of(space, float, 930, 860, 777)
    strategy, _ = walked(problem, tmp_path, sum, step=0.05, decay=1.0)
    assert [t.metrics["weights"] for t in strategy.trail] == [1000, 950, 930, 880, 860, 810, 777]
    for level in (2000, 930, 900, 860, 777):
        assert float(problem.cost("weights")([strategy.solve({"weights": level})])[0]) <= level
    assert strategy.solve({"weights": 900}) == (879,)
    assert strategy.solve({"weights": 5}) == (4,)  # below the end of the walk
    with pytest.raises(BudgetError, match="smallest network"):
        strategy.solve({"weights": 0.5})


def test_the_best_of_the_networks_accepted_is_the_answer(tmp_path):
    space = Plain(Choice("n", tuple(range(1, 101)), ordered=True))
    peak = {79: 0.9}  # better than the wider ones
    strategy, _ = walked(problem_of(space, float, 50), tmp_path, lambda a: peak.get(a[0], 0.5), step=0.1, decay=1.0)
    assert strategy.solve({"weights": 95}) == (79,)
    assert strategy.solve({"weights": 79}) == (69,)


@pytest.mark.parametrize("ordered", [True, False])
def test_choices_that_are_no_numbers_step_to_lower_options(tmp_path, ordered):
    space = Plain(
        Choice("block", (False, True), ordered=ordered),
        Choice("size", ("small", "medium", "large"), ordered=ordered),
        Choice("extra", (False, True), ordered=ordered),
    )

    def price(block, size, extra):
        return 30 * block + 10 * ("small", "medium", "large").index(size) + 5 * extra + 1

    problem = problem_of(space, price, 11)
    strategy, trials = walked(problem, tmp_path, sum, step=0.05, decay=1.0)
    assert all(0 <= o < len(c.options) for t in trials for o, c in zip(t.arch, space.choices, strict=True))
    # Each step loses one option, so what saves most per step is best: the block first.
    assert [t.arch for t in strategy.trail] == [(1, 2, 1), (0, 2, 1), (0, 1, 1), (0, 0, 1)]


def test_a_choice_that_cannot_make_the_reduction_is_left_out_and_the_reduction_halved_if_none_can(tmp_path):
    space = Plain(Choice("large", (0, 60), ordered=True), Choice("small", tuple(range(11)), ordered=True))
    problem = problem_of(space, lambda a, b: 30 + a + b, 31)
    strategy, trials = walked(problem, tmp_path, lambda a: a[0], step=0.2, decay=1.0)
    assert trials[1].arch == (0, 10)  # the small choice saves 10 of the 20 asked for
    assert [t.metrics["weights"] for t in strategy.trail] == [100, 40, 31]
    assert len(trials) == 3


def test_costs_are_asked_for_once_per_iteration_however_many_options(tmp_path):
    problem = problem_of(GOLDEN, golden_weights, 26_500)
    strategy = Netadapt(problem, 0)
    strategy.ask()
    strategy.tell([Trial(0, GOLDEN.reference, 1.0, {"accuracy": 95.0})])
    before = problem.cost("weights").calls
    assert len(strategy.ask()) == 3
    assert problem.cost("weights").calls - before <= 4


def test_failed_candidates_are_passed_over(tmp_path):
    class Fails(Judge):
        def __call__(self, proposal, seed):
            if proposal.arch[2] != 63:
                raise ValueError("diverged")
            return super().__call__(proposal, seed)

    problem = problem_of(GOLDEN, golden_weights, 26_500)
    strategy = Netadapt(problem, 0, decay=1.0)
    assert run(strategy, problem, Fails(golden_accuracy), folder=tmp_path, seed=0)
    assert all(t.ok for t in strategy.trail)
    assert all(t.arch[2] == 63 for t in strategy.trail)


def test_a_child_of_a_failed_network_inherits_from_the_last_one_that_has_weights(tmp_path):
    problem = problem_of(GOLDEN, golden_weights, 26_500)
    strategy = Netadapt(problem, 0)
    strategy.tell([Trial(0, GOLDEN.reference, 1.0, {"accuracy": 95.0})])
    trials = [Trial(i, p.arch, 1.0, {}, "no", p.parent) for i, p in enumerate(strategy.ask(), 1)]
    strategy.tell(trials)
    assert not strategy.trail[-1].ok
    assert {p.parent for p in strategy.ask()} == {0}
    assert strategy.parents() == [0]


def test_all_limits_hold_at_the_end(tmp_path):
    problem = small_problem()
    for metric in ("", "macs", "memory_bytes"):
        strategy = Netadapt(problem, 0, metric=metric)
        folder = tmp_path / (metric or "first")
        assert run(strategy, problem, Synthetic(problem), folder=folder, seed=0)
        assert within(problem, strategy.trail[-1].arch, levels(problem)[-1])
        assert not within(problem, strategy.trail[-2].arch, levels(problem)[-1])


def test_where_no_choice_saves_anything_the_value_reached_is_told(tmp_path):
    space = Plain(Choice("a", (1, 2), ordered=True), Choice("b", (1, 2), ordered=True))
    problem = problem_of(space, lambda a, b: 1 if a == b == 1 else 10, 5)  # only both together save
    with pytest.raises(BudgetError, match="no choice lowers weights below 10, the smallest value reached"):
        walked(problem, tmp_path, sum)


def test_what_is_wrong_is_told():
    problem = small_problem()
    with pytest.raises(CapabilityError, match="needs a limit"):
        Netadapt(replace(problem, constraints=()), 0)
    with pytest.raises(CapabilityError, match="no constraint on 'params'"):
        Netadapt(problem, 0, metric="params")
    for settings in ({"step": 0.0}, {"step": 1.0}, {"decay": 0.0}, {"decay": 1.1}):
        with pytest.raises(ConfigError, match="must be in"):
            Netadapt(problem, 0, **settings)


def test_no_network_is_built():
    with pytest.raises(AssertionError, match="builds no network"):
        nn.Sequential(GOLDEN.build((0, 0, 0)))

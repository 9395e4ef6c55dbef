from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import pytest

from contracts import checks
from sartor.core.contracts import Space
from sartor.core.errors import BudgetError, ConfigError, DataError
from sartor.core.moves import Moves
from sartor.core.records import Choice, Proposal
from sartor.costs.params import Params
from sartor.spaces.tiny import Tiny
from sartor.strategies.n2n import N2n

from strategies.searching import judged, problem, search  # isort: skip


class Students(Space):
    """Three removals, two widths, one addition."""

    def __init__(self):
        self.choices = (
            *(Choice(f"keep:{i}", (0, 1)) for i in range(3)),
            *(Choice(f"width:{i}", (4, 8, 12, 16), ordered=True) for i in range(2)),
            Choice("skip", ("none", "first")),
        )

    @property
    def reference(self):
        return (1, 1, 1, 3, 3, 0)

    def build(self, arch):
        raise AssertionError("a search builds no network")


def students(upper=None):
    return replace(problem(2, upper=upper), space=Students())


def test_removal_then_shrinkage():
    """The first stage leaves the widths alone; the second starts from its best network. Nothing is ever added."""
    strategy = N2n(students(), 0, trials=40, batch=4)
    trials = search(strategy, lambda a: -abs(sum(a[:3]) - 1) - 0.1 * a[3])
    assert len(trials) == 40
    assert all(t.arch[3:] == (3, 3, 0) for t in trials[:20])
    assert len({t.arch[:3] for t in trials[:20]}) > 2
    best = max(trials[:20], key=lambda t: t.metrics["accuracy"]).arch
    assert all(t.arch[:3] == best[:3] and t.arch[5] == 0 for t in trials[20:])
    assert len({t.arch[3:] for t in trials[20:]}) > 4


def test_stages_that_a_space_lacks():
    assert N2n(problem(4, 4), 0, trials=10).first == 0
    only = replace(problem(2), space=type("Only", (Students,), {"choices": Students().choices[:3]})())
    only.space.choices = Students().choices[:3]
    only.space.__class__.reference = (1, 1, 1)
    assert N2n(only, 0, trials=10).first == 10
    assert len(search(N2n(only, 0, trials=10), sum)) == 10
    assert search(N2n(problem(1, 1), 0, trials=10), sum) == []


class Listed(Moves):
    """60 of the students."""

    @cached_property
    def members(self):
        rng = np.random.default_rng(0)
        every = {tuple(rng.integers([2, 2, 2, 3, 3, 2]).tolist()) for _ in range(400)}
        return sorted(every)[:60]


class Few(Students):
    """A list of students; none is the teacher with layers removed only."""

    def __init__(self):
        super().__init__()
        self.moves = Listed(self.choices, self.canonical)

    def canonical(self, arch):
        return arch if arch in self.moves.members else self.moves.members[0]


@pytest.mark.parametrize("upper", [None, 7.0])
def test_a_list_of_networks(upper):
    """Draws are of the list, in both stages, many different ones; the policy learns which are good."""
    strategy = N2n(replace(students(upper), space=Few()), 0, trials=300, lr=0.03, reward="feasible", removal=0.3)
    trials = search(strategy, lambda a: a[0] + a[3] + a[4])
    few = strategy.problem.space.moves.members
    assert all(t.arch in few and (upper is None or sum(t.arch) <= upper) for t in trials)
    assert len({t.arch for t in trials[:30]}) > 10
    early, late = (np.mean([t.metrics["accuracy"] for t in part]) for part in (trials[:90], trials[-30:]))
    assert late > early + 0.7


def test_a_list_of_which_nothing_is_within_the_budget():
    with pytest.raises(BudgetError, match="none of the 60"):
        N2n(replace(students(-1.0), space=Few()), 0, trials=5)


def test_it_learns():
    strategy = N2n(problem(5, 5), 0, trials=200, lr=0.03)
    trials = search(strategy, lambda a: a[0] + 1.5 * a[1])
    early, late = (np.mean([t.metrics["accuracy"] for t in part]) for part in (trials[:30], trials[-30:]))
    assert late > early + 1


def test_it_learns_within_the_budget():
    strategy = N2n(problem(5, 5, upper=4), 0, trials=150, lr=0.03)
    trials = search(strategy, lambda a: a[0] + 1.5 * a[1])
    assert all(sum(t.arch) <= 4 for t in trials)
    early, late = (np.mean([t.metrics["accuracy"] for t in part]) for part in (trials[:30], trials[-30:]))
    assert late > early + 0.5
    assert strategy.solve({"sum": 4}) == max(trials, key=strategy.worth).arch


def test_a_budget_that_the_policy_hardly_ever_meets():
    strategy = N2n(problem(*[9] * 5, upper=2), 0, trials=5)
    assert all(sum(t.arch) <= 2 for t in search(strategy, sum))
    with pytest.raises(BudgetError):
        N2n(problem(5, 5, upper=-1), 0).ask()


def test_the_removal_stage_resumes_exactly(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "small_problem", students)
    checks.search(checks.fresh(N2n), tmp_path / "whole", _Judge())
    checks.search(checks.Reborn(lambda: checks.fresh(N2n)), tmp_path / "again", _Judge())
    checks.assert_equal(tmp_path / "whole", tmp_path / "again")
    archs = [t.arch for t in checks.recorded(tmp_path / "whole")]
    assert len({a[:3] for a in archs}) > 1
    assert len({a[3:] for a in archs}) > 1


class _Judge:
    def __call__(self, proposal, seed):
        return {"accuracy": float(sum(proposal.arch))}


def test_failures_teach_nothing():
    strategy = N2n(problem(3, 3), 0)
    before = [p.clone() for p in strategy.policies.all[1].net.parameters()]
    strategy.tell(judged(strategy.ask(), lambda a: None))
    assert checks.same(before, list(strategy.policies.all[1].net.parameters()))


def test_the_teacher_comes_first():
    space = Tiny()
    free = replace(problem(2), space=space, costs={"params": Params(space)})
    strategy = N2n(free, 0, trials=11)
    assert strategy.ask() == [Proposal(space.reference)]
    trials = search(strategy, lambda a: 0.5 + 0.1 * sum(a))
    assert len(trials) == 11
    assert strategy.solve({}) == max(trials[1:], key=strategy.worth).arch
    strategy = N2n(free, 0)
    with pytest.raises(DataError, match="the teacher's accuracy is 0"):
        strategy.tell(judged(strategy.ask(), lambda a: 0.0))


@pytest.mark.parametrize("settings", [{"lr": 0.0}, {"momentum": 1.0}, {"removal": 1.5}])
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError, match="lr must be positive"):
        N2n(problem(2), 0, **settings)

from __future__ import annotations

from sartor import archs
from sartor.core.contracts import Evaluator
from sartor.core.records import Proposal
from sartor.evaluators.synthetic import Synthetic
from sartor.run.runner import run
from sartor.solvers.budgets import levels, within
from sartor.strategies.autoslim import Autoslim

from problems import small_problem  # isort: skip


class Flat(Evaluator):
    """All networks are alike."""

    def __call__(self, proposal, seed):
        return {"accuracy": 0.5}


def searched(folder, evaluator, **settings):
    problem = small_problem()
    strategy = Autoslim(problem, 0, epochs=1, **settings)
    run(strategy, problem, evaluator, folder=folder, seed=0)
    return problem, strategy


def test_walks_down_by_the_least_loss_of_accuracy(tmp_path):
    judge = Synthetic(small_problem())
    problem, strategy = searched(tmp_path, judge)
    expected = [archs.largest(problem.space)]
    while not within(problem, expected[-1], levels(problem)[-1]):
        arch = expected[-1]
        children = [(*arch[:i], a - 1, *arch[i + 1 :]) for i, a in enumerate(arch) if a]
        expected.append(max(children, key=lambda a: judge(Proposal(a), 0)["accuracy"]))
    assert strategy.trail == expected
    assert len(expected) > 3


def test_remembers_the_first_arch_under_each_level(tmp_path):
    problem, strategy = searched(tmp_path, Synthetic(small_problem()))
    for limits in levels(problem):
        assert strategy.solve(limits) == next(a for a in strategy.trail if within(problem, a, limits))


def test_of_equal_accuracies_the_larger_saving_wins(tmp_path):
    problem, strategy = searched(tmp_path, Flat())
    macs = problem.cost("macs")
    for arch, following in zip(strategy.trail, strategy.trail[1:], strict=False):
        share = [strategy._share(a) for a in strategy._children(arch)]
        assert strategy._share(following) == min(share)
        assert float(macs([following])[0]) < float(macs([arch])[0])


def test_strides_are_longer_steps(tmp_path):
    _, strategy = searched(tmp_path, Synthetic(small_problem()), stride=2)
    steps = [
        max(a - b for a, b in zip(one, two, strict=True))
        for one, two in zip(strategy.trail, strategy.trail[1:], strict=False)
    ]
    assert max(steps) == 2

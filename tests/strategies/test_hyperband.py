from __future__ import annotations

from itertools import groupby

from sartor.strategies.hyperband import Hyperband
from strategies.searching import problem, search


def test_the_brackets_of_the_paper_one_after_the_other():
    strategy = Hyperband(problem(9, 9, 9), 0, trials=206 + 81, batch=7, least=1 / 81)
    trials = search(strategy, sum)
    runs = [(round(81 * f), len(list(several))) for f, several in groupby(trials, key=lambda t: t.fidelity)]
    assert runs == [
        *[(1, 81), (3, 27), (9, 9), (27, 3), (81, 1)],
        *[(3, 34), (9, 11), (27, 3), (81, 1)],
        *[(9, 15), (27, 5), (81, 1)],
        *[(27, 8), (81, 2 + 5)],
        (1, 81),
    ]


def test_only_the_full_fidelity_answers():
    strategy = Hyperband(problem(9, 9, upper=9), 0, trials=60)
    trials = search(strategy, lambda a: None if a == (4, 5) else sum(a))
    assert all(sum(t.arch) <= 9 for t in trials)
    full = [t for t in trials if t.fidelity == 1 and t.ok]
    assert sum(strategy.solve({"sum": 9})) == max(t.metrics["accuracy"] for t in full)

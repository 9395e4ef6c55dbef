from __future__ import annotations

import pytest

from sartor.core.errors import ConfigError
from sartor.regions.brackets import Rung, bracket
from sartor.regions.knockouts import Knockout

from strategies.searching import problem, search  # isort: skip


def knockout(brackets, **settings):
    return Knockout(problem(9, 9, upper=9), 0, brackets, **{"trials": 20, "batch": 4, **settings})


def test_batches_end_with_their_rung_and_the_best_go_on():
    strategy, sizes = knockout([bracket(9, 2, 3)], trials=13), []
    trials = search(strategy, sum, lambda batch: sizes.append(len(batch)))
    assert sizes == [4, 4, 1, 3, 1]
    assert all(sum(t.arch) <= 9 for t in trials)
    first = [t.arch for t in trials[:9]]
    assert [t.arch for t in trials[9:12]] == sorted(first, key=sum, reverse=True)[:3]
    assert sum(strategy.solve({"sum": 9})) == max(map(sum, first))


def test_what_is_drawn_can_be_another_thing():
    class Same(Knockout):
        def draw(self):
            return (1, 2)

    trials = search(Same(problem(9, 9), 0, [[Rung(2, 0.5), Rung(1, 1.0)]], trials=6, batch=9), sum)
    assert {t.arch for t in trials} == {(1, 2)}
    assert [t.fidelity for t in trials] == [0.5, 0.5, 1.0, 0.5, 0.5, 1.0]


@pytest.mark.parametrize("settings", [{"trials": 0}, {"batch": 0}])
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError, match="at least 1"):
        knockout([bracket(9, 2, 3)], **settings)

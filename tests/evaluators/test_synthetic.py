from dataclasses import replace
from itertools import product

import pytest

from problems import small_problem
from sartor.core.errors import ConfigError
from sartor.core.records import Proposal
from sartor.evaluators.synthetic import Synthetic
from sartor.spaces.burger import Burger
from sartor.spaces.tiny import Tiny


def test_every_step_up_is_better():
    problem = small_problem()
    score = Synthetic(problem)
    value = {a: score(Proposal(a), 0)["accuracy"] for a in product(range(4), repeat=3)}
    for arch, v in value.items():
        assert 0.1 < v < 1
        for i in range(3):
            up = (*arch[:i], arch[i] + 1, *arch[i + 1 :])
            assert up not in value or value[up] > v
    assert max(value, key=value.get) == (3, 3, 3)
    assert value[3, 3, 3] == pytest.approx(0.99)


def test_interaction_is_the_only_part_that_is_not_additive():
    def mixed(interaction):
        score = Synthetic(small_problem(), interaction=interaction)
        a, b, c, d = (score(Proposal(arch), 0)["accuracy"] for arch in [(0, 0, 0), (3, 0, 0), (0, 3, 0), (3, 3, 0)])
        return d - b - c + a

    assert mixed(0.0) == pytest.approx(0, abs=1e-12)
    assert mixed(0.5) > 0.01


def test_equal_networks_are_equal():
    class Folded(Tiny):
        def canonical(self, arch):
            return (*arch[:2], 0)

    score = Synthetic(replace(small_problem(), space=Folded(classes=2, size=4)))
    assert score(Proposal((1, 2, 3)), 0) == score(Proposal((1, 2, 0)), 0)


def test_fidelity_noise_and_landscape():
    problem = small_problem()
    plain, noisy = Synthetic(problem), Synthetic(problem, noise=0.1, metric="score")
    whole = Proposal((1, 2, 0))
    assert plain(Proposal((1, 2, 0), fidelity=0.1), 0)["accuracy"] < plain(whole, 0)["accuracy"]
    assert plain(whole, 0) == plain(whole, 1)
    assert noisy(whole, 0) != noisy(whole, 1)
    assert plain(whole, 0) != Synthetic(problem, landscape=1)(whole, 0)


@pytest.mark.parametrize("bad", [{"interaction": 1.5}, {"noise": -1.0}])
def test_settings_out_of_range_are_named(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Synthetic(small_problem(), **bad)


def test_a_space_that_accounts_for_the_metric_is_believed():
    space = Burger()
    problem = replace(small_problem(), space=space)
    exact, noisy = Synthetic(problem, metric="taste"), Synthetic(problem, metric="taste", noise=1.0)
    assert exact(Proposal((1, 2, 1), fidelity=0.1), 0) == {"taste": 22 + 48 + 19}
    assert noisy(Proposal((1, 2, 1)), 0) != exact(Proposal((1, 2, 1)), 0)
    assert 0 < Synthetic(problem)(Proposal((1, 2, 1)), 0)["accuracy"] < 1

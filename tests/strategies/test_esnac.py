from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from contracts import checks
from sartor.core.errors import BudgetError, CapabilityError, ConfigError, DataError
from sartor.core.records import Proposal, Trial
from sartor.costs.params import Params
from sartor.run.simulated import SimulatedLab
from sartor.sampling.embedding import load
from sartor.spaces.tiny import Tiny
from sartor.strategies.esnac import Esnac
from sartor.strategies.random_search import RandomSearch

from problems import small_problem  # isort: skip
from strategies.searching import Plain, judged, problem, search  # isort: skip

FAST = {"hidden": 4, "layers": 1, "updates": 10, "candidates": 40, "kernels": 2, "batch": 4}


def priced(space):
    """No limits, and a number of parameters."""
    return replace(problem(2), space=space, costs={"params": Params(space)})


def variant(**settings):
    return type("Variant", (Esnac,), {"smoke": {**Esnac.smoke, **settings}})


VARIANTS = {
    "transformer": variant(encoder="transformer", acquisition="thompson", maximise="local"),
    "one kernel": variant(kernels=1, acquisition="log_ei", subset=1.0),
    "short trials": variant(fidelity=0.25, best=2),
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys(), scope="module")
def cls(request):
    return request.param


@pytest.fixture(scope="module")
def whole(cls, tmp_path_factory):
    folder = tmp_path_factory.mktemp("variant")
    checks.search(checks.fresh(cls), folder)
    return folder


def test_variants_propose_what_they_may(cls, whole):
    checks.proposes_only_archs_of_the_space(cls, whole)
    checks.stays_within_limits(cls, whole)


@pytest.mark.parametrize("calls", [4, 7])
def test_variants_resume_exactly(cls, whole, tmp_path, calls):
    checks.killed_in_a_trial_resumes_exactly(cls, whole, tmp_path / "a", calls)
    checks.killed_in_a_step_resumes_exactly(cls, whole, tmp_path / "b", calls)
    checks.saved_state_is_complete(cls, whole, tmp_path / "c")


def test_variants_survive_failures(cls, tmp_path):
    checks.survives_failed_trials(cls, tmp_path)


def test_nothing_is_tried_twice():
    trials = search(Esnac(problem(4, 4, upper=4), 0, **FAST), sum)
    archs = [t.arch for t in trials]
    assert len(archs) == len(set(archs)) == sum(i + j <= 4 for i in range(4) for j in range(4))


def test_it_finds_more_than_random_search():
    """Sum of six choices, the second half counts against: the mean of the best of 40."""

    def score(arch):
        return sum(arch[:3]) - sum(arch[3:])

    best = {}
    for name, make in {
        "esnac": lambda s: Esnac(problem(*[6] * 6, ordered=True), s, trials=40, **{**FAST, "batch": 8, "updates": 20}),
        "random": lambda s: RandomSearch(problem(*[6] * 6, ordered=True), s, trials=40),
    }.items():
        best[name] = np.mean([max(t.metrics["accuracy"] for t in search(make(s), score)) for s in range(2)])
    assert best["esnac"] > best["random"] + 1


def test_the_teacher_is_tried_first_and_is_no_student():
    space = Tiny()
    strategy = Esnac(priced(space), 0, trials=9, **FAST)
    assert not strategy.within_limits
    assert strategy.ask() == [Proposal(space.reference)]
    trials = search(strategy, lambda a: 0.5 + 0.01 * sum(a))
    assert trials[0].arch == space.reference
    assert len(trials) == 9
    assert strategy.solve({}) != space.reference
    rewards = {t.arch: strategy.worth(t) for t in trials}
    assert rewards[space.reference] == 0.0
    assert strategy.solve({}) == max(rewards, key=rewards.get)


def test_a_teacher_that_is_known_is_not_tried():
    strategy = Esnac(priced(Tiny()), 0, teacher=0.9, **FAST)
    assert strategy.within_limits
    assert len(strategy.ask()) == 4
    strategy.tell(judged(strategy.ask(), lambda a: 0.3))
    archs, y = strategy._known()
    assert archs[0] == Tiny().reference
    assert len(y) == 5


def test_values_as_published():
    """Not standardised, with the teacher at 0."""
    strategy = Esnac(priced(Tiny()), 0, teacher=0.9, standardise=False, **FAST)
    strategy.tell(trials := judged(strategy.ask(), lambda a: 0.3 + 0.1 * a[0]))
    _, y = strategy._known()
    assert y.tolist() == [0.0, *map(strategy.worth, trials)]


def test_standardised_values():
    strategy = Esnac(problem(9), 0, **FAST)
    values = [0.9, 0.8, 0.7, -1e9]
    strategy.tell([Trial(i, (i,), 1.0, {"accuracy": v}) for i, v in enumerate(values)])
    archs, y = strategy._known()
    assert archs == [(0,), (1,), (2,), (3,)]
    assert float(y.mean()) == pytest.approx(0, abs=1e-9)
    assert float(y.square().mean()) == pytest.approx(1)
    assert y[0] - y[1] == pytest.approx(y[1] - y[2])
    assert y[2] > y[3]


def test_short_trials_end_with_the_best_at_full_length():
    strategy = Esnac(problem(6, 6), 0, trials=10, fidelity=0.1, best=3, **FAST)
    seen = []
    while proposals := strategy.ask():
        seen.append(proposals)
        strategy.tell(judged(proposals, sum, sum(map(len, seen[:-1]))))
    assert all(p.fidelity == 0.1 and p.parent is None for batch in seen[:-1] for p in batch)
    ranked = sorted(strategy.trials[:10], key=lambda t: -sum(t.arch))[:3]
    assert seen[-1] == [Proposal(t.arch, 1.0, t.index) for t in ranked]
    assert sum(map(len, seen)) == 13
    assert sum(strategy.solve({})) == max(sum(t.arch) for t in strategy.trials)


def test_parents_are_the_best_so_far():
    strategy = Esnac(problem(9), 0, fidelity=0.5, best=2, **FAST)
    strategy.tell([Trial(i, (i,), 0.5, {"accuracy": v}) for i, v in enumerate([0.1, 0.9, 0.5, 0.7])])
    assert strategy.parents() == [1, 3]
    assert not Esnac(problem(9), 0, **FAST).parents()


def test_an_embedding_for_other_searches(tmp_path):
    checks.search(checks.fresh(Esnac), tmp_path)
    path = tmp_path / "artifacts" / "embedding.safetensors"
    strategy = Esnac(small_problem(), 1, **{**Esnac.smoke, "embedding": str(path)})
    assert len(load(path, strategy.encoding.features, strategy.recipe)) == 2
    before = [{n: t.clone() for n, t in e.state_dict().items()} for e in strategy.frozen]
    written = path.read_bytes()
    checks.search(strategy, tmp_path / "second")
    assert len(checks.trials(tmp_path / "second")) == 9
    assert checks.same(before, [e.state_dict() for e in strategy.frozen])
    assert not (tmp_path / "second" / "artifacts").exists()
    assert path.read_bytes() == written


def test_an_embedding_of_other_networks(tmp_path):
    checks.search(checks.fresh(Esnac), tmp_path)
    path = str(tmp_path / "artifacts" / "embedding.safetensors")
    with pytest.raises(ConfigError, match="described by other numbers"):
        Esnac(problem(9, 9), 0, **{**Esnac.smoke, "embedding": path})


def test_networks_of_different_depth():
    class Deep(Plain):
        def description(self, arch):
            return np.array([[1.0, i, arch[1]] for i in range(arch[0] + 1)])

    for encoder in ("lstm", "transformer"):
        strategy = Esnac(replace(problem(2), space=Deep(5, 5)), 0, trials=12, encoder=encoder, **FAST)
        assert len(search(strategy, sum)) == 12


def test_threads_do_not_matter():
    found = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            strategy = Esnac(problem(*[9] * 4), 0, trials=12, hidden=64, layers=2, candidates=300, updates=8)
            found.append([t.arch for t in search(strategy, sum)])
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
    assert found[0] == found[1]


def test_a_simulation_keeps_nothing():
    lab = SimulatedLab(lambda p, seed: {"accuracy": float(sum(p.arch))}, 0, max_trials=8, costs=lambda a: {})
    strategy = Esnac(problem(5, 5), 0, trials=8, **FAST)
    while strategy.step(lab):
        pass
    assert len(lab.trials) == 8


def test_what_cannot_be():
    strategy = Esnac(priced(Tiny()), 0, **FAST)
    with pytest.raises(DataError, match="the teacher's accuracy is 0"):
        strategy.tell(judged(strategy.ask(), lambda a: 0.0))
    strategy = Esnac(priced(Tiny()), 0, **FAST)
    with pytest.raises(DataError, match="the teacher could not be evaluated"):
        strategy.tell(judged(strategy.ask(), lambda a: None))
    strategy = Esnac(problem(5, 5), 0, **FAST)
    strategy.tell(judged(strategy.ask(), lambda a: float("nan")))
    with pytest.raises(DataError, match="the reward of trial 0 is nan"):
        strategy.ask()
    with pytest.raises(BudgetError):
        Esnac(problem(5, 5, upper=-1), 0, **FAST).ask()
    with pytest.raises(CapabilityError, match="'params'"):
        Esnac(problem(5, 5), 0, reward="compression")


@pytest.mark.parametrize(
    "settings",
    [{"acquisition": "ucb"}, {"maximise": "all"}, {"subset": 0.0}, {"fidelity": 1.5}, {"kernels": 0}, {"encoder": "x"}],
)
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError, match=f"{next(iter(settings))}"):
        Esnac(problem(2), 0, **settings)

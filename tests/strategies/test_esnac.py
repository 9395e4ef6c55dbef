from __future__ import annotations

import json
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch

from contracts import checks
from sartor.core.abilities import Described
from sartor.core.contracts import Evaluator
from sartor.core.errors import BudgetError, CapabilityError, ConfigError, DataError
from sartor.core.records import Proposal, Trial
from sartor.costs.params import Params
from sartor.evaluators.synthetic import Synthetic
from sartor.run.journal import FileJournal
from sartor.run.runner import Limits, run
from sartor.run.simulated import SimulatedLab
from sartor.spaces.tiny import Tiny
from sartor.strategies.esnac import Esnac
from sartor.strategies.random_search import RandomSearch
from sartor.surrogates.embedding import Recipe, load

from problems import small_problem  # isort: skip
from strategies.searching import Plain, judged, problem, search  # isort: skip

FAST = {"hidden": 4, "layers": 1, "updates": 10, "candidates": 40, "kernels": 2, "batch": 4}


def priced(space):
    """No limits, and a number of parameters."""
    return replace(problem(2), space=space, costs={"params": Params(space)})


FIELDS = {field.name for field in fields(Recipe)}


def grouped(settings):
    """Settings of the embedding in their table."""
    inner = {name: value for name, value in settings.items() if name in FIELDS}
    outer = {name: value for name, value in settings.items() if name not in FIELDS}
    return {**outer, "embedding": replace(outer.get("embedding", Recipe()), **inner)}


def esnac(checked, seed, **settings):
    return Esnac(checked, seed, **grouped(settings))


def variant(**settings):
    return type("Variant", (Esnac,), {"smoke": grouped({**Esnac.smoke, **settings})})


VARIANTS = {
    "transformer": variant(encoder="transformer", acquisition="thompson", maximise="local"),
    "one kernel": variant(kernels=1, acquisition="log_ei", subset=1.0),
    "warm graph": variant(encoder="graph", warm=True, acquisition="log_ei", kernels=3),
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
    trials = search(esnac(problem(4, 4, upper=4), 0, **FAST), sum)
    archs = [t.arch for t in trials]
    assert len(archs) == len(set(archs)) == sum(i + j <= 4 for i in range(4) for j in range(4))


def test_it_finds_more_than_random_search():
    """Sum of six choices, the second half counts against: the mean of the best of 40."""

    def score(arch):
        return sum(arch[:3]) - sum(arch[3:])

    best = {}
    for name, make in {
        "esnac": lambda s: esnac(problem(*[6] * 6, ordered=True), s, trials=40, **{**FAST, "batch": 8, "updates": 20}),
        "random": lambda s: RandomSearch(problem(*[6] * 6, ordered=True), s, trials=40),
    }.items():
        best[name] = np.mean([max(t.metrics["accuracy"] for t in search(make(s), score)) for s in range(2)])
    assert best["esnac"] > best["random"] + 1


def test_the_teacher_is_tried_first_and_is_no_student():
    space = Tiny()
    strategy = esnac(priced(space), 0, trials=9, **FAST)
    assert not strategy.within_limits
    assert strategy.ask() == [Proposal(space.reference)]
    trials = search(strategy, lambda a: 0.5 + 0.01 * sum(a))
    assert trials[0].arch == space.reference
    assert len(trials) == 9
    assert strategy.solve({}) != space.reference
    rewards = {t.arch: strategy.worth(t) for t in trials}
    assert rewards[space.reference] == 0.0
    assert strategy.solve({}) == max(rewards, key=rewards.get)


def test_the_first_batch_may_be_narrowed_networks():
    strategy = esnac(priced(Tiny()), 0, **FAST, narrowed=3)
    strategy.tell(judged(strategy.ask(), lambda a: 1.0))
    first = [p.arch for p in strategy.ask()]
    space = strategy.problem.space
    assert first[:3] == [space.scaled(f) for f in (0.75, 0.5, 0.25)]
    assert len(set(first)) == 4


def test_a_teacher_that_is_known_is_not_tried():
    strategy = esnac(priced(Tiny()), 0, teacher=0.9, **FAST)
    assert strategy.within_limits
    assert len(strategy.ask()) == 4
    strategy.tell(judged(strategy.ask(), lambda a: 0.3))
    archs, targets = strategy._known()
    assert archs[0] == Tiny().reference
    assert len(targets) == 5


def test_values_as_published():
    """Not standardised, with the teacher at 0."""
    strategy = esnac(priced(Tiny()), 0, teacher=0.9, standardise=False, **FAST)
    strategy.tell(trials := judged(strategy.ask(), lambda a: 0.3 + 0.1 * a[0]))
    _, targets = strategy._known()
    assert targets.final.tolist() == [0.0, *map(strategy.worth, trials)]


def test_standardised_values():
    strategy = esnac(problem(9), 0, **FAST)
    values = [0.9, 0.8, 0.7, -1e9]
    strategy.tell([Trial(i, (i,), 1.0, {"accuracy": v}) for i, v in enumerate(values)])
    archs, targets = strategy._known()
    y = targets.final
    assert archs == [(0,), (1,), (2,), (3,)]
    assert float(y.mean()) == pytest.approx(0, abs=1e-9)
    assert float(y.square().mean()) == pytest.approx(1)
    assert y[0] - y[1] == pytest.approx(y[1] - y[2])
    assert y[2] > y[3]


def test_short_trials_end_with_the_best_at_full_length():
    strategy = esnac(problem(6, 6), 0, trials=10, fidelity=0.1, best=3, **FAST)
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
    strategy = esnac(problem(9), 0, fidelity=0.5, best=2, **FAST)
    strategy.tell([Trial(i, (i,), 0.5, {"accuracy": v}) for i, v in enumerate([0.1, 0.9, 0.5, 0.7])])
    assert strategy.parents() == [1, 3]
    assert not esnac(problem(9), 0, **FAST).parents()


def test_an_embedding_for_other_searches(tmp_path):
    checks.search(checks.fresh(Esnac), tmp_path)
    path = tmp_path / "artifacts" / "embedding.safetensors"
    strategy = esnac(small_problem(), 1, **{**Esnac.smoke, "file": str(path)})
    assert len(load(path, strategy.encoding.features, strategy.recipe)) == 2
    before = [{n: t.clone() for n, t in e.state_dict().items()} for e in strategy.frozen]
    written = path.read_bytes()
    checks.search(strategy, tmp_path / "second")
    assert len(checks.recorded(tmp_path / "second")) == 9
    assert checks.same(before, [e.state_dict() for e in strategy.frozen])
    assert not (tmp_path / "second" / "artifacts").exists()
    assert path.read_bytes() == written


def test_an_embedding_of_other_networks(tmp_path):
    checks.search(checks.fresh(Esnac), tmp_path)
    path = str(tmp_path / "artifacts" / "embedding.safetensors")
    with pytest.raises(ConfigError, match="described by other numbers"):
        esnac(problem(9, 9), 0, **{**Esnac.smoke, "file": path})


class Rows(Plain, Described):
    """Describes as many layers as it has choices: another network's space if it has more."""

    def description(self, arch):
        return np.array([[1.0, a, a * a] for a in arch], dtype=np.float32)


def test_an_embedding_serves_networks_with_other_numbers_of_layers(tmp_path):
    """Trained on four layers, frozen on six: it still tells apart what matters, values of the first option."""

    def lab(score, folder):
        class Kept(SimulatedLab):
            def artifact(self, name):
                return folder / name

        return Kept(lambda p, seed: {"accuracy": score(p.arch)}, 0, max_trials=99, costs=lambda a: {})

    def score(arch):
        return float(sum(a == 0 for a in arch))

    settings = {**FAST, "hidden": 8, "updates": 40, "trials": 24, "kernels": 3}
    strategy = esnac(replace(problem(2), space=Rows(*[4] * 4)), 0, **settings)
    simulation = lab(score, tmp_path)
    while strategy.step(simulation):
        pass
    path = str(tmp_path / "embedding.safetensors")
    wider = replace(problem(2), space=Rows(*[4] * 6))
    frozen = esnac(wider, 1, **settings, file=path)
    assert len(frozen.frozen) == 3
    trials = search(frozen, score)
    assert len(trials) == 24
    assert max(score(t.arch) for t in trials[4:]) > max(score(t.arch) for t in trials[:4])


def test_kernels_go_on_from_the_step_before():
    """With one step of training, weights of the second step are near those of the first only if they start there."""
    away = {}
    for warm in (True, False):
        strategy = esnac(problem(6, 6), 0, trials=12, warm=warm, **{**FAST, "updates": 1})
        kept = []
        for _ in range(3):
            strategy.tell(judged(strategy.ask(), sum, len(strategy.trials)))
            kept.append([torch.cat([p.detach().flatten() for p in e.parameters()]) for e in strategy._trained])
        away[warm] = max(float((a - b).abs().max()) for a, b in zip(kept[1], kept[2], strict=True))
        assert len(strategy.weights) == (2 if warm else 0)
    assert away[True] < 0.01 < away[False]


def curving(arch, noise):
    """Two early epochs that say what a network is worth, and a last one that hardly does."""
    value = sum(arch) / 20
    return {"accuracy": value + noise, "accuracy_1": value - 0.3, "accuracy_2": value - 0.1, "accuracy_3": value}


def test_early_epochs_count():
    rng = np.random.default_rng(0)
    told = [Trial(i, (i // 6, i % 6), 1.0, curving((i // 6, i % 6), rng.normal())) for i in range(0, 36, 2)]
    for curve in (True, False):
        strategy = esnac(problem(6, 6), 0, curve=curve, **FAST)
        strategy.tell(told)
        _, targets = strategy._known()
        assert targets.columns.shape == (18, 3 if curve else 1)
        assert len(strategy.ask()) == 4
    with pytest.raises(ConfigError, match="curve is True and standardise is False"):
        esnac(problem(6, 6), 0, curve=True, standardise=False)
    strategy = esnac(problem(6, 6), 0, curve=True, **FAST)
    strategy.tell(judged(strategy.ask(), sum))
    with pytest.raises(ConfigError, match="no trial reports accuracy_1"):
        strategy.ask()


def test_early_epochs_are_resumed_exactly(tmp_path):
    class Curving(Evaluator):
        def __call__(self, proposal, seed):
            return curving(proposal.arch, (seed % 97) / 97)

    def going(folder, limit):
        strategy = esnac(small_problem(), 0, **{**Esnac.smoke, "curve": True})
        run(strategy, small_problem(), Curving(), folder=folder, seed=0, limits=Limits(trials=limit))

    going(tmp_path / "a", None)
    going(tmp_path / "b", 5)
    going(tmp_path / "b", None)
    checks.assert_equal(tmp_path / "a", tmp_path / "b")


def ended(folder, archs, place, score):
    """What `sartor search` leaves."""
    (folder / "search").mkdir(parents=True)
    choices = [{"name": c.name, "options": list(c.options)} for c in place.space.choices]
    (folder / "search.json").write_text(json.dumps({"search": {"choices": choices}}))
    journal = FileJournal(folder / "search" / "journal.jsonl")
    for i, arch in enumerate(archs):
        journal.append({"kind": "trial", **asdict(Trial(i, arch, 1.0, {"accuracy": score(arch)}))})
    return str(folder)


def test_earlier_searches_are_known_from_the_start(tmp_path):
    place = problem(8, 8, ordered=True)
    archs = [(i, j) for i in range(0, 8, 2) for j in range(8) if i + j < 9]
    folder, firsts = ended(tmp_path, archs, place, sum), []
    for seed in range(3):
        settings = {**FAST, "trials": 8, "updates": 60, "hidden": 8, "lr": 0.01, "candidates": 64}
        strategy = esnac(place, seed, **settings, earlier=folder)
        known, targets = strategy._known()
        assert known == archs
        assert targets.final.argmax() == np.argmax([sum(a) for a in archs])
        trials = search(strategy, sum)
        assert len(strategy._known()[0]) == len({*archs, *(t.arch for t in trials)})
        firsts += [sum(t.arch) for t in trials[:4]]
    assert np.mean(firsts) > 9  # of random networks 7


def test_the_teacher_of_an_earlier_search_is_no_student(tmp_path):
    space, place = Tiny(), priced(Tiny())
    archs = [space.reference, (0, 1, 2), (1, 1, 1)]
    strategy = esnac(place, 0, teacher=0.9, **FAST, earlier=[ended(tmp_path, archs, place, lambda a: 0.5)])
    assert strategy._known()[0] == archs
    assert esnac(place, 0, **FAST, earlier=str(tmp_path)).ask() == [Proposal(space.reference)]


def test_an_earlier_search_of_another_space(tmp_path):
    with pytest.raises(ConfigError, match="searched another space: 3 choices, here are 2"):
        esnac(problem(4, 4), 0, earlier=ended(tmp_path, [(0, 0, 0)], problem(4, 4, 4), sum))


def test_networks_of_different_depth():
    class Deep(Plain, Described):
        def description(self, arch):
            return np.array([[1.0, i, arch[1]] for i in range(arch[0] + 1)])

    for encoder in ("lstm", "transformer", "graph"):
        strategy = esnac(replace(problem(2), space=Deep(5, 5)), 0, trials=12, encoder=encoder, **FAST)
        assert len(search(strategy, sum)) == 12


def test_threads_do_not_matter():
    found = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            strategy = esnac(problem(*[9] * 4), 0, trials=12, hidden=64, layers=2, candidates=300, updates=8)
            found.append([t.arch for t in search(strategy, sum)])
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
    assert found[0] == found[1]


def test_a_simulation_keeps_nothing():
    lab = SimulatedLab(lambda p, seed: {"accuracy": float(sum(p.arch))}, 0, max_trials=8, costs=lambda a: {})
    strategy = esnac(problem(5, 5), 0, trials=8, **FAST)
    while strategy.step(lab):
        pass
    assert len(lab.trials) == 8


def test_what_cannot_be():
    strategy = esnac(priced(Tiny()), 0, **FAST)
    with pytest.raises(DataError, match="the teacher's accuracy is 0"):
        strategy.tell(judged(strategy.ask(), lambda a: 0.0))
    strategy = esnac(priced(Tiny()), 0, **FAST)
    with pytest.raises(DataError, match="the teacher could not be evaluated"):
        strategy.tell(judged(strategy.ask(), lambda a: None))
    strategy = esnac(problem(5, 5), 0, **FAST)
    strategy.tell(judged(strategy.ask(), lambda a: float("nan")))
    with pytest.raises(DataError, match="the reward of trial 0 is nan"):
        strategy.ask()
    with pytest.raises(BudgetError):
        esnac(problem(5, 5, upper=-1), 0, **FAST).ask()
    with pytest.raises(CapabilityError, match="'params'"):
        esnac(problem(5, 5), 0, reward="compression")


@pytest.mark.parametrize(
    "settings",
    [
        {"acquisition": "ucb"},
        {"maximise": "all"},
        {"subset": 0.0},
        {"fidelity": 1.5},
        {"kernels": 0},
        {"encoder": "x"},
        {"narrowed": 2},
    ],
)
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError, match=f"{next(iter(settings))}"):
        esnac(problem(2), 0, **settings)


def logs(folder):
    """What the steps have logged."""
    return [{k: v for k, v in r.items() if k not in {"kind", "step"}} for r in records(folder) if r["kind"] == "log"]


def records(folder):
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def test_kernels_whose_training_diverges_leave_random_networks_and_say_so(tmp_path):
    """A step of Adam as large as this leaves weights that are not finite."""
    checked = small_problem()
    strategy = esnac(checked, 0, trials=16, lr=1e37, **FAST)
    run(strategy, checked, Synthetic(checked), folder=tmp_path, seed=0)
    archs = [t.arch for t in strategy.trials]
    assert len(archs) == len(set(archs)) == 16
    assert [log["failed_kernels"] for log in logs(tmp_path)] == [2.0] * 3


@pytest.mark.parametrize("acquisition", ["ei", "log_ei", "thompson"])
def test_networks_that_look_alike_without_noise_get_a_nugget_and_say_so(tmp_path, acquisition):
    """A kernel so long, and an embedding so short, that all networks nearly coincide."""
    checked = small_problem()
    settings = {"beta": 1e-30, "alpha": 1e12, "acquisition": acquisition}
    strategy = esnac(checked, 0, trials=16, **settings, **FAST)
    run(strategy, checked, Synthetic(checked), folder=tmp_path, seed=0)
    assert len({t.arch for t in strategy.trials}) == 16
    assert len(logs(tmp_path)) == 3
    assert all(log["nugget"] > 0 and "failed_kernels" not in log for log in logs(tmp_path))


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**40])
def test_the_unit_of_the_rewards_does_not_matter(tmp_path, scale):
    def tried(unit, place):
        strategy, checked = esnac(small_problem(), 0, trials=16, **FAST), small_problem()
        run(strategy, checked, Scaled(Synthetic(checked), unit), folder=place, seed=0)
        return [t.arch for t in strategy.trials]

    assert tried(1.0, tmp_path / "one") == tried(scale, tmp_path / "other")


class Scaled(Evaluator):
    def __init__(self, inner, unit):
        self.inner, self.unit = inner, unit

    def __call__(self, proposal, seed):
        return {name: self.unit * value for name, value in self.inner(proposal, seed).items()}

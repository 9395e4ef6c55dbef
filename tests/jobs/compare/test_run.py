from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch

from sartor.core.contracts import Evaluator
from sartor.core.errors import BudgetError, CapabilityError, ConfigError, StateError
from sartor.core.rng import torch_rng
from sartor.jobs.compare.allowance import Allowance, Entrant, pace_of
from sartor.jobs.compare.run import PROBE, Setup, _Contest, compare, compare_recipe, line_up, thinned
from sartor.jobs.fit.assemble import assemble
from sartor.jobs.fit.stage import Job
from sartor.run import comparison as comparisons
from sartor.run.comparison import Given, Use
from sartor.run.folder import RunFolder, read_config
from sartor.run.journal import FileJournal, read_logs, read_trials
from sartor.run.ledger import Ledger
from sartor.run.progress import Silent
from sartor.run.schema import encode
from sartor.training import Recipe
from small import latency_settings, settings

EPOCHS = 4
TASK = {"name": "digits", "size": 8, "batch": 512, "augment": ""}
RECIPE = settings(task=TASK, training={"epochs": 2, "lr": 0.1}, strategy={"name": "autoslim", "epochs": 3, "lr": 0.3})
ASKED = Setup({"hyperband": {}}, Allowance("epochs", EPOCHS), seeds=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "out"
    return compare(RECIPE, folder, ASKED), folder


class Stopped(BaseException):
    """Like a kill: nothing is tidied up by the job itself."""


class Stopping(Silent):
    """Stops at the n-th sign of life."""

    def __init__(self, at):
        self.left = at

    def bar(self, done, total, label=""):
        self.left -= 1
        if self.left == 0:
            raise Stopped


def timeless(value):
    """Without what a clock says."""
    if isinstance(value, dict):
        clocks = ("seconds", "spent", "environment")
        return {k: timeless(v) for k, v in value.items() if k not in clocks}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def searched(folder, name, seed):
    return FileJournal(folder / "searches" / name / str(seed) / "search/journal.jsonl")


def test_the_baselines_are_always_in_it(whole):
    found, _ = whole
    assert list(found.contestants) == ["hyperband", "random_search", "uniform_width", "autoslim"]
    assert found.seeds == (0, 1)
    assert found.left_out == {}
    assert found.given == Given("epochs", EPOCHS)
    assert found.metric.name == "accuracy"


def test_every_search_gets_the_same_epochs(whole):
    found, folder = whole
    price = Recipe.of(RECIPE["training"]).epochs_at
    for name, row in found.contestants.items():
        for answer in row.answers:
            journal = searched(folder, name, answer.seed)
            spent = sum(price(t.fidelity) for t in read_trials(journal)) if row.trained else len(read_logs(journal))
            assert answer.used.epochs == spent
            assert spent == (0 if name == "uniform_width" else EPOCHS)
            assert answer.used.trials == len(read_trials(journal))
    config = read_config(folder / "searches/autoslim/1/config.toml")
    assert config["strategy"] == {"name": "autoslim", "epochs": EPOCHS, "lr": 0.3}  # the recipe's other settings stay
    assert config["seed"] == 1


def test_answers_are_inside_trained_once_and_tested(whole):
    found, folder = whole
    limit = found.budget["macs"]
    for seed in found.seeds:
        stages = [r for r in FileJournal(folder / f"networks/{seed}/journal.jsonl").read() if r["kind"] == "stage"]
        answers = [next(a for a in row.answers if a.seed == seed) for row in found.contestants.values()]
        networks = {a.arch for a in answers}
        trained = [s["name"] for s in stages if s["name"].startswith("training.")]
        assert len(trained) == len(set(trained)) == len(networks) + 1  # and the reference
        tests = [s["result"]["scores"] for s in stages if s["name"].startswith("test.")]
        tested = {network["accuracy"]["value"] for scores in tests for network in scores.values()}
        assert len(tests) == len(trained)
        for answer in answers:
            assert answer.modelled["macs"] <= limit
            assert answer.quality in tested
            assert answer.examples == 359
    for row in found.contestants.values():
        accuracies = [a.quality for a in row.answers]
        assert row.tested.mean == pytest.approx(sum(accuracies) / 2)


def test_answers_are_told_in_words_and_the_reference_is_tested_at_every_seed(whole):
    found, _ = whole
    (answer, _) = found.contestants["autoslim"].answers
    options = {c.name: c.options[a] for c, a in zip(found.problem.choices, answer.arch, strict=True)}
    assert answer.options == options
    assert len(found.reference.values) == 2
    assert found.reference.modelled["macs"] > found.budget["macs"]
    assert found.reference.latency_ms is None, "nothing is timed where latency has no bound"


def test_only_the_accuracy_of_the_search_is_on_the_validation_split(whole):
    found, folder = whole
    (answer, _) = found.contestants["random_search"].answers
    best = max(t.metrics["accuracy"] for t in read_trials(searched(folder, "random_search", 0)))
    assert answer.trials[-1].best == best
    assert [t.epochs for t in answer.trials] == [2, 4]


@pytest.mark.parametrize("at", [5, 17])
def test_stopped_anywhere_and_gone_on_is_uninterrupted(whole, tmp_path, at):
    before, folder = whole
    screen = Stopping(at)
    with pytest.raises(Stopped):
        compare(RECIPE, tmp_path / "out", ASKED, display=screen)
    after = compare(RECIPE, tmp_path / "out", ASKED)
    assert timeless(encode(after)) == timeless(encode(before))
    assert comparisons.read(tmp_path / "out") == after
    assert comparisons.read(folder) == before


def test_more_seeds_go_on_and_another_allowance_does_not(whole, tmp_path):
    _, folder = whole
    shutil.copytree(folder, tmp_path / "out")
    before = searched(tmp_path / "out", "hyperband", 0).path.read_bytes()
    more = Setup({"random_search": {}}, ASKED.allowance, seeds=3)
    found = compare(RECIPE, tmp_path / "out", more)
    assert found.seeds == (0, 1, 2)
    assert list(found.contestants) == ["random_search", "uniform_width", "autoslim"]
    assert searched(tmp_path / "out", "hyperband", 0).path.read_bytes() == before
    with pytest.raises(StateError, match=r"compare\.amount"):
        compare(RECIPE, tmp_path / "out", Setup({}, Allowance("epochs", 10)))


def test_trials_have_a_greedy_search_that_trains_each(tmp_path):
    recipe = {**RECIPE, "training": {"epochs": 1}}
    found = compare(recipe, tmp_path / "out", Setup({}, Allowance("trials", 2), seeds=1))
    assert list(found.contestants) == ["random_search", "uniform_width", "local_search"]
    assert [a.used.trials for row in found.contestants.values() for a in row.answers] == [2, 0, 2]
    assert found.contestants["local_search"].gain.verdict == "unknown"  # one seed says nothing


class Halves(Evaluator):
    """Somebody's own evaluator: a sum of options, said to cost half an epoch."""

    def __init__(self, problem, *, bonus=0.0):
        self.task, self.bonus = problem.task, bonus

    def __call__(self, proposal, seed):
        return {"accuracy": self.bonus + sum(proposal.arch) / 100}

    def epochs(self, fidelity):
        return 0.5


@pytest.mark.parametrize(("unit", "trials"), [("epochs", 6), ("trials", 3)])
def test_an_evaluator_of_ones_own(tmp_path, monkeypatch, unit, trials):
    monkeypatch.setitem(sys.modules, "theirs", ModuleType("theirs"))
    sys.modules["theirs"].Halves = Halves
    recipe = {**RECIPE, "training": {"epochs": 1}, "evaluator": {"name": "theirs:Halves", "bonus": 0.5}}
    found = compare(recipe, tmp_path / "out", Setup({"ppo": {}}, Allowance(unit, 3), seeds=1))
    for name in ("ppo", "random_search"):
        (answer,) = found.contestants[name].answers
        assert replace(answer.used, seconds=0) == Use(trials, trials / 2, 0)
        assert [t.quality >= 0.5 for t in answer.trials] == [True] * trials


def test_what_has_no_order_cannot_be_slimmed():
    parts = assemble({**RECIPE, "space": {"name": "mbconv", "preset": "small"}})
    entrants, absent = line_up(parts, Setup({"tunas": {}}, Allowance("seconds", 5)))
    assert [e.name for e in entrants] == ["tunas", "random_search", "uniform_width", "local_search"]
    assert not absent


def test_a_thinned_task_has_a_part_of_the_batches():
    batches = [(torch.full((1,), float(i)), torch.zeros(1)) for i in range(7)]
    task = assemble(RECIPE).task
    for epoch in (lambda _: batches, lambda _: iter(batches)):
        part, share = thinned(replace(task, train=epoch), 4)
        assert [float(x) for x, _ in part.train(torch_rng(0))] == [0, 1]
        assert share == 2 / 7


def test_a_pace_is_the_mean_over_a_training(tmp_path):
    """Four epochs of a quarter of the batches each, rounded up, whatever the allowance is."""
    recipe = {**RECIPE, "task": {**TASK, "batch": 128}, "strategy": {"name": "aows", "epochs": 3}}
    allowance = Allowance("seconds", 1e-3)
    parts = assemble(recipe)
    with RunFolder(tmp_path / "out", recipe) as place:
        job = Job(parts, place, Ledger(place.journal), Silent())
        entrant = Entrant.of("aows", {}, recipe, allowance)
        contest = _Contest(job, Setup({}, allowance, seeds=1), [entrant])
        contest.pipeline.pose()
        assert entrant.table(allowance, contest.prices["aows"], pace_of(allowance, PROBE))["epochs"] == PROBE
        assert contest._pace(entrant) > 1e-3 / PROBE  # the probe is not ended by what the search may use


def test_seconds_pace_a_supernet(tmp_path):
    recipe = {**RECIPE, "training": {"epochs": 1}}
    found = compare(recipe, tmp_path / "out", Setup({}, Allowance("seconds", 0.3), seeds=1))
    stages = [r for r in FileJournal(tmp_path / "out/journal.jsonl").read() if r["kind"] == "stage"]
    (pace,) = [s["result"]["seconds"] for s in stages if s["name"] == "pace.autoslim"]
    assert read_config(tmp_path / "out/searches/autoslim/0/config.toml")["strategy"]["epochs"] == max(
        1, int(0.27 / pace)
    )
    assert found.contestants["random_search"].used.seconds >= 0.3
    assert found.contestants["random_search"].used.trials >= 1


@pytest.mark.parametrize(
    ("changes", "asked", "error", "message"),
    [
        ({"budget": {"macs": 10}}, {}, BudgetError, "the smallest one takes"),
        ({"budget": {}}, {}, ConfigError, r"no \[budget\]"),
        ({"budget": {"macs": ["50%", "60%"]}}, {}, ConfigError, "one budget"),
        ({"space": {"name": "nats_size"}}, {"aows": {}}, CapabilityError, "aows needs Shareable"),
        ({"space": {"name": "nats_size", "size": 8}}, {"netadapt": {}}, CapabilityError, "Finetune needs Shareable"),
        ({"space": {"name": "nats_topology"}}, {"uniform_width": {}}, CapabilityError, "needs Scalable"),
        ({"evaluator": {"name": "synthetic"}}, {"ppo": {}}, ConfigError, "a trial of ppo takes no epochs"),
        ({}, {"a/b": {"name": "ppo"}}, ConfigError, "cannot name"),
        ({}, {"randon_search": {}}, ConfigError, "random_search"),
    ],
)
def test_mistakes_are_named_before_anything_is_searched(tmp_path, changes, asked, error, message):
    with pytest.raises(error, match=message):
        compare({**RECIPE, **changes}, tmp_path / "out", Setup(asked, ASKED.allowance))
    assert not (tmp_path / "out/searches").exists()


def test_no_seed_is_no_comparison():
    with pytest.raises(ConfigError, match="seeds must be at least 1"):
        Setup({}, ASKED.allowance, seeds=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"given": {"trials": 3, "epochs": 5}}, "give one of"),
        ({"given": {"trials": None}}, "give one of"),
        ({"what": ["digits", "nowhere"]}, "digits is no folder"),
        ({"what": ["nowhere.toml"]}, "nowhere.toml"),
        ({"assignments": ["ppo.lr=0.1"]}, "neither a table"),
        ({"assignments": ["quick=1"]}, "TABLE.SETTING"),
        ({"assignments": ["random_search.trials=x"]}, "trials"),
    ],
)
def test_mistakes_of_a_command_line(tmp_path, arguments, message):
    fixed = {"what": ["digits"], "strategies": "aows", "given": {"epochs": 5}, "seeds": 1}
    with pytest.raises(ConfigError, match=message):
        compare_recipe(folder=tmp_path / "out", **{**fixed, **arguments})
    assert not (tmp_path / "out").exists()


def test_searches_side_by_side_find_what_they_find_one_after_another(whole, tmp_path):
    found = compare({**RECIPE, "workers": {"name": "processes", "count": 2}}, tmp_path / "out", ASKED)
    assert timeless(encode(found)) == timeless(encode(whole[0]))
    trained = [{s.name: s.networks_trained for s in f.spent.stages} for f in (found, whole[0])]
    assert trained[0] == trained[1]
    assert trained[0]["search"] > 0


@pytest.mark.slow
def test_searches_side_by_side_know_the_measured_problem(tmp_path):
    """The latency model is made once, by who compares; workers read it, and find networks inside the budget."""
    recipe = latency_settings(
        task=TASK, latency_model={"networks": 8, "heldout": 2, "sweeps": 1, "rounds": 2, "kind": "macs"}
    )
    asked = Setup({"random_search": {}}, Allowance("trials", 2), seeds=1)
    found = compare({**recipe, "workers": {"name": "processes", "count": 2}}, tmp_path / "out", asked)
    answers = [answer for c in found.contestants.values() for answer in c.answers if answer.arch is not None]
    assert answers
    assert all(a.modelled["latency_ms"] <= found.budget["latency_ms"] * (1 + 1e-9) for a in answers)

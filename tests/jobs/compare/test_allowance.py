from __future__ import annotations

from dataclasses import replace

import pytest

from problems import small_problem
from run.toys import Score
from sartor.core.errors import CapabilityError, ConfigError
from sartor.core.records import Objective
from sartor.jobs.compare.allowance import PLENTY, Allowance, Capped, Entrant, Purse
from sartor.run.journal import FileJournal, MemoryJournal, read_trials
from sartor.run.runner import restore, run
from sartor.spaces.tiny import Tiny
from sartor.strategies.hyperband import Hyperband
from sartor.strategies.random_search import RandomSearch
from sartor.training import Recipe

TRAINING = {"epochs": 9}
CONFIG = {"training": TRAINING, "strategy": {"name": "aows", "epochs": 8, "lr": 0.2}}
NINE = Recipe.of(TRAINING).epochs_at


class Judge(Score):
    def __call__(self, proposal, seed):
        self.calls.append(proposal)
        return {"score": float(sum(proposal.arch))}


def problem():
    return replace(small_problem(), objectives=(Objective("score", "max"),))


def search(folder, strategy, allowance, judge=None, price=NINE):
    folder.mkdir(exist_ok=True)
    capped = Capped(strategy, Purse(allowance, price, FileJournal(folder / "spent.jsonl")))
    finished = run(capped, problem(), judge or Judge(), folder=folder, seed=0)
    return capped, finished, read_trials(FileJournal(folder / "journal.jsonl"))


@pytest.mark.parametrize("amount", [13, 30])
def test_epochs_are_never_exceeded_and_no_trial_that_fits_is_left_out(tmp_path, amount):
    _, _, trials = search(tmp_path, Hyperband(problem(), 0, trials=PLENTY), Allowance("epochs", amount))
    spent = [NINE(t.fidelity) for t in trials]
    assert {t.fidelity for t in trials} > {1 / 9}
    assert sum(spent) <= amount
    whole = Hyperband(problem(), 0, trials=PLENTY)
    _, _, more = search(tmp_path / "more", whole, Allowance("epochs", amount + 9))
    assert [t.arch for t in more[: len(trials)]] == [t.arch for t in trials]
    assert sum(spent) + NINE(more[len(trials)].fidelity) > amount


def test_trials_are_counted(tmp_path):
    _, finished, trials = search(tmp_path, RandomSearch(problem(), 0, trials=50, batch=1), Allowance("trials", 7))
    assert len(trials) == 7
    assert not finished
    assert len(search(tmp_path / "few", RandomSearch(problem(), 0, trials=3), Allowance("trials", 7))[2]) == 3


class Stopped(BaseException):
    pass


class Stopping(Judge):
    def __call__(self, proposal, seed):
        if len(self.calls) == 5:
            raise Stopped
        return super().__call__(proposal, seed)


def test_a_stopped_search_goes_on_with_what_is_left(tmp_path):
    def strategy():
        return Hyperband(problem(), 0, trials=PLENTY, batch=3)

    allowance = Allowance("epochs", 21)
    whole = search(tmp_path / "whole", strategy(), allowance)
    with pytest.raises(Stopped):
        search(tmp_path / "parts", strategy(), allowance, Stopping())
    judge = Judge()
    parts = search(tmp_path / "parts", strategy(), allowance, judge)
    assert parts[2] == whole[2]
    assert len(judge.calls) == len(whole[2]) - 5
    again = Capped(strategy(), Purse(allowance, NINE, MemoryJournal()))
    assert restore(again, tmp_path / "parts")
    assert (again.paid, again.count) == (sum(NINE(t.fidelity) for t in parts[2][: again.count]), again.count)


def test_seconds_of_earlier_sessions_count(tmp_path):
    journal = FileJournal(tmp_path / "spent.jsonl")
    journal.append({"kind": "spent", "trials": 2, "seconds": 4.0})
    journal.append({"kind": "spent", "trials": 3, "seconds": 7.0})
    _, finished, trials = search(tmp_path, RandomSearch(problem(), 0, trials=9), Allowance("seconds", 10))
    assert finished
    assert trials == []
    capped, _, trials = search(tmp_path, RandomSearch(problem(), 0, trials=8, batch=4), Allowance("seconds", 1e6))
    assert trials == []  # it has ended, and its checkpoint says so
    capped, _, trials = search(tmp_path / "b", RandomSearch(problem(), 0, trials=8, batch=4), Allowance("seconds", 1e6))
    assert len(trials) == 8
    records = list(FileJournal(tmp_path / "b/spent.jsonl").read())
    assert capped.purse.seconds == pytest.approx(sum(r["seconds"] for r in records))
    assert [r["trials"] for r in records] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 8]  # after every trial and every step


@pytest.mark.parametrize(
    ("name", "allowance", "told"),
    [
        ("random_search", Allowance("trials", 40), {"trials": 40}),
        ("random_search", Allowance("epochs", 40), {"trials": 4}),
        ("hyperband", Allowance("epochs", 40), {"trials": 40}),
        ("random_search", Allowance("seconds", 40), {"trials": PLENTY}),
        ("aows", Allowance("epochs", 40.5), {"epochs": 40, "lr": 0.2}),
        ("autoslim", Allowance("epochs", 40), {"epochs": 40}),
        ("autoslim", Allowance("seconds", 40), {"epochs": 18}),
        ("uniform_width", Allowance("epochs", 40), {}),
    ],
)
def test_strategies_are_told_what_they_get(name, allowance, told):
    entrant = Entrant.of(name, {}, CONFIG, allowance)
    assert entrant.table(allowance, NINE, 2.0) == {"name": name, **told}


def test_a_recipes_evaluator_is_for_those_that_can_use_another():
    config = {**CONFIG, "evaluator": {"name": "train", "recipe": {"epochs": 2}}}
    assert Entrant.of("ppo", {}, config, Allowance("epochs", 9)).evaluator == config["evaluator"]
    assert Entrant.of("aows", {}, config, Allowance("epochs", 9)).evaluator == {"name": "inherited"}
    assert Entrant.of("netadapt", {}, config, Allowance("epochs", 9)).evaluator == {"name": "finetune"}
    config = {**CONFIG, "evaluator": {"recipe": {"epochs": 2}, "batches": 3, "steps": 4}}  # no name: each takes its own
    assert Entrant.of("ppo", {}, config, Allowance("epochs", 9)).evaluator == {"name": "train", **config["evaluator"]}
    aows = Entrant.of("aows", {}, config, Allowance("epochs", 9)).evaluator
    assert aows == {"name": "inherited", "batches": 3, "steps": 4}, "what nobody knows is still refused later"
    netadapt = Entrant.of("netadapt", {}, config, Allowance("epochs", 9)).evaluator
    assert netadapt == {"name": "finetune", **config["evaluator"]}, "it trains by a recipe, too"
    config = {**CONFIG, "evaluator": {"name": "inherited", "batches": 3}}
    assert Entrant.of("aows", {}, config, Allowance("epochs", 9)).evaluator == config["evaluator"]


@pytest.mark.parametrize(
    ("name", "table", "allowance", "message"),
    [
        ("randon_search", {}, ("trials", 5), "random_search"),
        ("ppo", {"rl": 0.1}, ("trials", 5), "rl"),
        ("aows", {}, ("trials", 5), "trials mean nothing"),
        ("netadapt", {}, ("trials", 5), "trials mean nothing"),
        ("aows", {"epochs": 3}, ("epochs", 5), "leave the setting out"),
        ("aows", {}, ("epochs", 0.5), "one epoch at least"),
        ("ppo", {}, ("hours", 5), "trials, epochs, seconds"),
        ("ppo", {}, ("trials", 0), "positive"),
        ("ppo", {}, ("trials", 2.5), "whole"),
    ],
)
def test_what_makes_no_sense_is_refused(name, table, allowance, message):
    with pytest.raises(ConfigError, match=message):
        Entrant.of(name, table, CONFIG, Allowance(*allowance))


def test_epochs_would_never_end_a_search_that_trains_nothing():
    config = {**CONFIG, "evaluator": {"name": "reconstructed"}}
    entrant, epochs = Entrant.of("ppo", {}, config, Allowance("epochs", 5)), Allowance("epochs", 5)
    with pytest.raises(ConfigError, match=r"ppo takes no epochs .its evaluator is reconstructed.*--seconds"):
        entrant.check_price(lambda _: 0.0, epochs)
    entrant.check_price(lambda _: 0.25, epochs)
    entrant.check_price(lambda _: 0.0, Allowance("seconds", 5))
    for name in ("aows", "uniform_width"):  # their epochs are not those of their trials
        Entrant.of(name, {}, CONFIG, epochs).check_price(lambda _: 0.0, epochs)


def test_trials_of_any_evaluator_are_alike_if_all_have_it():
    config = {**CONFIG, "evaluator": {"name": "reconstructed"}}
    assert Entrant.of("ppo", {}, config, Allowance("trials", 5)).evaluator == {"name": "reconstructed"}


def test_a_supernet_is_asked_of_the_space():
    Entrant.of("aows", {}, CONFIG, Allowance("epochs", 5)).check_space(Tiny())
    with pytest.raises(CapabilityError, match="aows needs Shareable"):
        Entrant.of("aows", {}, CONFIG, Allowance("epochs", 5)).check_space(_Plain())


class _Plain:
    choices = ()
